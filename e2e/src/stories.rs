// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The stories: each a test that reads as what happens to a guest.

mod bargain;
mod boot;
mod crash;
mod demo;
mod image;
mod lab;
mod life;
mod log;
mod migrate;
mod moves;
mod pages;
mod plan;
mod postcopy;
mod recover;
mod refusals;
mod storage;
mod store;
mod systemd;
mod walkthrough;
pub(crate) mod xen;

use crate::setting::Setting;
use anyhow::Result;

/// A test on real hosts and guests.
pub struct Story {
    /// `group/what_is_told`.
    pub name: &'static str,
    pub tell: fn(&Setting) -> Result<()>,
}

impl Story {
    pub fn group(&self) -> &'static str {
        self.name.split_once('/').map_or(self.name, |(group, _)| group)
    }

    pub fn is_meant_by(&self, name: &str) -> bool {
        self.name == name || self.group() == name
    }
}

/// Names the stories of modules: `group/function`.
macro_rules! stories {
    ($($group:ident { $($story:ident),* $(,)? })*) => {
        &[$($(Story {
            name: concat!(stringify!($group), "/", stringify!($story)),
            tell: $group::$story,
        },)*)*]
    };
}

/// All stories, in the order in which they are told.
pub const STORIES: &[Story] = stories! {
    lab {
        hosts_are_hosts,
        the_shared_directory_can_be_withheld,
        wires_obey,
        labs_coexist_and_leave_nothing,
    }
    image { the_witness_boots_and_counts }
    life {
        from_create_to_rm,
        guests_outlive_the_daemon,
        guests_outlive_many_daemons,
        the_program_is_upgraded,
        the_console_is_there,
        one_types_others_read,
        a_guest_ends_as_its_policies_say,
        one_file_on_two_hosts,
        lists_and_logs,
        autostart_after_a_host_boot,
        the_engine_is_confined,
    }
    boot {
        a_disk_by_bios,
        a_disk_by_uefi,
        an_iso,
        a_port_leads_into_the_guest,
        what_was_frozen_stays,
    }
    migrate {
        there_and_back,
        through_a_single_channel,
        stop_and_copy,
        between_versions_of_qemu,
        a_paused_guest_arrives_paused,
        a_stopped_guest_moves_its_definition,
        two_at_once,
        ctrl_c_cancels,
        a_guest_that_ends_while_moving,
    }
    moves {
        detached_and_watched,
        within_a_bandwidth,
        the_console_follows,
        again_after_a_cut,
        a_guest_that_reboots,
        a_guest_that_panics,
    }
    bargain {
        kept_beside_the_link,
        cancelled_with_numbers,
        a_predicted_miss_is_refused,
        the_pause_in_parts,
        a_longer_pause,
        slowed_down,
        held_until_the_word,
        a_paused_guest_is_held,
        rehearsed,
    }
    postcopy {
        memory_follows,
        it_may_not_be_needed,
        a_daemon_is_killed,
        a_cut_is_waited_for,
        on_a_newer_qemu,
        the_deadline_passes,
        daemons_die_in_a_cut,
        a_carrying_process_is_killed,
        the_half_that_was_left_is_lost,
        the_half_that_runs_is_lost,
        a_host_does_not_come_back,
        its_way_is_not_overridden,
        the_kernel_must_allow_it,
    }
    pages {
        there_and_back_and_there,
        a_cable_is_pulled_and_plugged_in,
        the_target_daemon_dies_with_the_link,
        what_was_kept_is_damaged,
        no_room_to_keep,
        what_lies_on_the_disk,
    }
    log {
        both_hosts_tell_one_story,
        who_was_turned_away,
        a_forgotten_host_hears_no_more,
        the_report_is_kept,
    }
    demo {
        kept_and_cleaned,
        without_root,
    }
    refusals {
        what_the_target_lacks,
        what_the_target_forbids,
        hosts_that_are_not_paired,
        a_processor_that_lacks_something,
        files_with_mistakes,
    }
    plan {
        made_in_two_seconds,
        two_bridges_that_are_not_one_network,
        an_engine_that_does_not_start,
        a_host_in_maintenance,
        a_way_back_that_is_closed,
        a_device_that_cannot_move,
        uefi_variables_travel,
        an_nfs_server_that_says_no,
        a_disk_that_cannot_grow,
        small_things_that_differ,
        others_make_room,
        a_baseline_fits_both,
        a_doctor_s_visit,
    }
    storage { a_disk_by_nfs_url, damaged_records }
    store { kept_within_bounds, gone_with_its_guest }
    recover { a_dead_host, a_false_word, a_fence }
    systemd { restarts_spare_guests, the_host_goes_down }
    walkthrough { the_chapter_as_printed }
    xen {
        from_create_to_rm,
        what_a_pause_is,
        a_whole_machine,
        what_breaks_while_it_moves,
        the_chapter_and_the_contract,
    }
    crash {
        the_target_engine_is_killed,
        the_target_daemon_is_killed,
        the_source_daemon_is_killed,
        the_wire_is_pulled,
        twenty_guests_and_a_daemon_that_dies,
    }
};
