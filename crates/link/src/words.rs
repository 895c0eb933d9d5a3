// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Fingerprints that two people can compare over the phone.
//!
//! Each byte is a word of the PGP word list (its two-syllable half): short, and hard to mishear.

use sha2::{Digest, Sha256};
use whimbrel_model::id::HostId;

/// How many words stand for a fingerprint: 48 bits, plenty where a person watches.
pub const WORDS: usize = 6;

/// Returns the words of one host's fingerprint.
pub fn of_host(host: HostId) -> String {
    render(&host.0)
}

/// Returns the words two paired hosts both show, whichever of them asks.
pub fn of_pair(one: HostId, other: HostId) -> String {
    let mut hash = Sha256::new();
    hash.update(one.min(other).0);
    hash.update(one.max(other).0);
    render(&hash.finalize())
}

fn render(bytes: &[u8]) -> String {
    let words: Vec<&str> = bytes.iter().take(WORDS).map(|&b| LIST[usize::from(b)]).collect();
    words.join(" ")
}

#[rustfmt::skip]
const LIST: [&str; 256] = [
    "aardvark", "absurd", "accrue", "acme", "adrift", "adult", "afflict", "ahead", "aimless",
    "Algol", "allow", "alone", "ammo", "ancient", "apple", "artist", "assume", "Athens", "atlas",
    "Aztec", "baboon", "backfield", "backward", "banjo", "beaming", "bedlamp", "beehive", "beeswax",
    "befriend", "Belfast", "berserk", "billiard", "bison", "blackjack", "blockade", "blowtorch",
    "bluebird", "bombast", "bookshelf", "brackish", "breadline", "breakup", "brickyard",
    "briefcase", "Burbank", "button", "buzzard", "cement", "chairlift", "chatter", "checkup",
    "chisel", "choking", "chopper", "Christmas", "clamshell", "classic", "classroom", "cleanup",
    "clockwork", "cobra", "commence", "concert", "cowbell", "crackdown", "cranky", "crowfoot",
    "crucial", "crumpled", "crusade", "cubic", "dashboard", "deadbolt", "deckhand", "dogsled",
    "dragnet", "drainage", "dreadful", "drifter", "dropper", "drumbeat", "drunken", "Dupont",
    "dwelling", "eating", "edict", "egghead", "eightball", "endorse", "endow", "enlist", "erase",
    "escape", "exceed", "eyeglass", "eyetooth", "facial", "fallout", "flagpole", "flatfoot",
    "flytrap", "fracture", "framework", "freedom", "frighten", "gazelle", "Geiger", "glitter",
    "glucose", "goggles", "goldfish", "gremlin", "guidance", "hamlet", "highchair", "hockey",
    "indoors", "indulge", "inverse", "involve", "island", "jawbone", "keyboard", "kickoff", "kiwi",
    "klaxon", "locale", "lockup", "merit", "minnow", "miser", "Mohawk", "mural", "music",
    "necklace", "Neptune", "newborn", "nightbird", "Oakland", "obtuse", "offload", "optic", "orca",
    "payday", "peachy", "pheasant", "physique", "playhouse", "Pluto", "preclude", "prefer",
    "preshrunk", "printer", "prowler", "pupil", "puppy", "python", "quadrant", "quiver", "quota",
    "ragtime", "ratchet", "rebirth", "reform", "regain", "reindeer", "rematch", "repay", "retouch",
    "revenge", "reward", "rhythm", "ribcage", "ringbolt", "robust", "rocker", "ruffled", "sailboat",
    "sawdust", "scallion", "scenic", "scorecard", "Scotland", "seabird", "select", "sentence",
    "shadow", "shamrock", "showgirl", "skullcap", "skydive", "slingshot", "slowdown", "snapline",
    "snapshot", "snowcap", "snowslide", "solo", "southward", "soybean", "spaniel", "spearhead",
    "spellbind", "spheroid", "spigot", "spindle", "spyglass", "stagehand", "stagnate", "stairway",
    "standard", "stapler", "steamship", "sterling", "stockman", "stopwatch", "stormy", "sugar",
    "surmount", "suspense", "sweatband", "swelter", "tactics", "talon", "tapeworm", "tempest",
    "tiger", "tissue", "tonic", "topmost", "tracker", "transit", "trauma", "treadmill", "Trojan",
    "trouble", "tumor", "tunnel", "tycoon", "uncut", "unearth", "unwind", "uproot", "upset",
    "upshot", "vapor", "village", "virus", "Vulcan", "waffle", "wallet", "watchword", "wayside",
    "willow", "woodlark", "Zulu",
];

#[cfg(test)]
mod tests {
    use super::*;

    /// Words tell bytes apart: none occurs twice.
    #[test]
    fn every_byte_has_its_own_word() {
        let mut lower: Vec<String> = LIST.iter().map(|word| word.to_lowercase()).collect();
        let listed = lower.clone();
        lower.sort();
        lower.dedup();
        assert_eq!(lower, listed);
    }

    /// Both hosts of a pair show the same words, and another pair shows others.
    #[test]
    fn a_pair_has_the_same_words_on_both_sides() {
        let [a, b, c] = [1, 2, 3].map(|n| HostId([n; 32]));
        assert_eq!(of_pair(a, b), of_pair(b, a));
        assert_ne!(of_pair(a, b), of_pair(a, c));
        assert_eq!(of_host(HostId([255; 32])), "Zulu Zulu Zulu Zulu Zulu Zulu");
    }
}
