// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! `whimbrel pages`

use crate::context::{Context, End};
use crate::table::Align::{Left, Right};
use crate::table::Table;
use crate::{Done, format};
use whimbrel_api::pages::{KeptMemory, KeptMemoryList, MemoryDropped};

/// See and drop the memory that this host keeps of guests that have left it.
///
/// It is sealed with a key that left with the guest, and makes the guest's return quick. To drop it
/// costs nothing but that.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List whose memory is kept here, and until when.
    #[command(visible_alias = "ls")]
    List,
    Drop(DropArgs),
}

/// Drop what is kept of a guest here.
///
/// Of a guest that has left, that is its memory. Of one that is here, it is the key of the memory
/// that the host it came from keeps, which nobody can open then.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct DropArgs {
    /// The guest's name, its number on this host, or its uuid.
    guest: Option<String>,
    /// Drop what is kept of all guests.
    #[arg(long)]
    all: bool,
}

pub(super) async fn run(cx: &mut Context, args: Args) -> Done {
    match args.command {
        Command::List => list(cx).await,
        Command::Drop(DropArgs { guest, .. }) => drop(cx, guest).await,
    }
}

async fn list(cx: &mut Context) -> Done {
    let list = cx.client.kept_memory().await?;
    if cx.printer.is_json {
        cx.printer.json(&list);
        return Ok(End::Done);
    }
    cx.printer.data(&render(&list.images));
    cx.printer.say(&total(&list));
    Ok(End::Done)
}

fn render(images: &[KeptMemory]) -> String {
    let mut table = Table::new(&[
        ("Guest", Left),
        ("Went to", Left),
        ("Memory", Right),
        ("Takes", Right),
        ("Since", Left),
        ("Until", Left),
    ]);
    for image in images {
        table.row(vec![
            image.guest.clone().unwrap_or_else(|| image.guest_uuid.clone()),
            image.went_to.clone().unwrap_or_else(|| "(damaged)".to_owned()),
            image.memory_bytes.map(format::size).unwrap_or_default(),
            format::size(image.bytes),
            format::date(image.created_at_ms),
            format::date(image.expires_at_ms),
        ]);
    }
    table.render()
}

fn total(list: &KeptMemoryList) -> String {
    if !list.is_kept {
        return "This host keeps no memory: `keep = false` stands under `[pages]`.".to_owned();
    }
    let (bytes, budget) = (format::size(list.bytes), format::size(list.budget_bytes));
    let writing = match list.unfinished_bytes {
        0 => String::new(),
        bytes => format!("; {} more is being written", format::size(bytes)),
    };
    format!("{bytes} of at most {budget}{writing}.")
}

async fn drop(cx: &mut Context, guest: Option<String>) -> Done {
    if let Some(guest) = &guest {
        cx.about(guest);
    }
    let dropped = cx.client.drop_kept_memory(guest.as_deref()).await?;
    if cx.printer.is_json {
        cx.printer.json(&dropped);
    } else {
        cx.printer.say(&told(&dropped));
    }
    Ok(End::Done)
}

fn told(dropped: &MemoryDropped) -> String {
    let of = |count: u32| format::count(count.into(), "guest");
    let images = || {
        let size = format::size(dropped.bytes);
        format!("The memory of {} was dropped; {size} are free again.", of(dropped.image_count))
    };
    let keys = || {
        let guests = of(dropped.key_count);
        format!("What other hosts keep of {guests} here cannot be opened any more.")
    };
    match (dropped.image_count, dropped.key_count) {
        (0, 0) => "Nothing was kept.".to_owned(),
        (_, 0) => images(),
        (0, _) => keys(),
        _ => format!("{}\n{}", images(), keys()),
    }
}
