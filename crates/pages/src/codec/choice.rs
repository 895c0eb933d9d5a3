// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Which codec? The one that moves the guest fastest; among equals, the one that sends least.
//!
//! A batch passes a chain: the engine gives it, cores pack it, the link carries it, the other end
//! unpacks it. The slowest of the four decides. A codec that is the slowest link of that chain
//! makes things worse than sending raw bytes would, so the choice is arithmetic on measured rates,
//! and the rates are arguments: this crate has no clock.

use super::Codec;

/// A codec's cost, measured on this guest's pages where possible.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CodecRates {
    pub codec: Codec,
    /// Plain bytes packed per second on one core.
    pub pack_bytes_per_s: f64,
    /// Plain bytes unpacked per second on one core.
    pub unpack_bytes_per_s: f64,
    /// Packed bytes per plain byte.
    pub ratio: f64,
}

impl CodecRates {
    /// What was measured on the pages of an ordinary Linux guest, for a start.
    pub const TYPICAL: [CodecRates; 4] = [
        CodecRates::of(Codec::Raw, 8.0e9, 8.0e9, 1.0),
        CodecRates::of(Codec::Lz4, 6.7e8, 3.6e9, 0.46),
        CodecRates::of(Codec::Zstd(1), 4.4e8, 1.2e9, 0.345),
        CodecRates::of(Codec::Zstd(3), 2.5e8, 1.15e9, 0.32),
    ];

    const fn of(codec: Codec, pack: f64, unpack: f64, ratio: f64) -> Self {
        Self { codec, pack_bytes_per_s: pack, unpack_bytes_per_s: unpack, ratio }
    }

    /// Blends in one batch: `plain_bytes` became `packed_bytes` in `seconds` on one core.
    /// An eighth of the new and seven of the old: a few batches decide, a single one does not.
    pub fn measure(&mut self, plain_bytes: usize, packed_bytes: usize, seconds: f64) {
        if plain_bytes == 0 || seconds <= 0.0 {
            return;
        }
        let blend = |old: &mut f64, new: f64| *old += (new - *old) / 8.0;
        blend(&mut self.pack_bytes_per_s, plain_bytes as f64 / seconds);
        blend(&mut self.ratio, (packed_bytes as f64 / plain_bytes as f64).min(1.0));
    }
}

/// What a codec has to keep up with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Conditions {
    /// Bytes the link carries per second, after encryption.
    pub link_bytes_per_s: f64,
    /// Plain bytes per second that ask to be packed; infinite if nobody knows yet.
    pub input_bytes_per_s: f64,
    /// Cores at the source that neither the guest nor the carrier needs. Less than one is possible.
    pub source_cores: f64,
    /// The same at the target.
    pub target_cores: f64,
}

/// A codec within this part of the fastest counts as equally fast.
const EQUALLY_FAST: f64 = 0.97;

/// Returns the codec to use, or [`Codec::Raw`] if `candidates` is empty.
pub fn choose(candidates: &[CodecRates], conditions: &Conditions) -> Codec {
    let rate = |rates: &CodecRates| plain_bytes_per_s(rates, conditions);
    let fastest = candidates.iter().map(rate).fold(0.0, f64::max);
    candidates
        .iter()
        .filter(|rates| rate(rates) >= fastest * EQUALLY_FAST)
        .min_by(|a, b| a.ratio.total_cmp(&b.ratio))
        .map_or(Codec::Raw, |rates| rates.codec)
}

fn plain_bytes_per_s(rates: &CodecRates, conditions: &Conditions) -> f64 {
    let (pack, unpack) = match rates.codec {
        // A copy; it takes no core worth counting.
        Codec::Raw => (rates.pack_bytes_per_s, rates.unpack_bytes_per_s),
        Codec::Lz4 | Codec::Zstd(_) => (
            rates.pack_bytes_per_s * conditions.source_cores,
            rates.unpack_bytes_per_s * conditions.target_cores,
        ),
    };
    let link = conditions.link_bytes_per_s / rates.ratio.max(0.001);
    pack.min(unpack).min(link).min(conditions.input_bytes_per_s)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(link_mbit: f64, input_bytes_per_s: f64, cores: f64, expected: Codec) {
        let link_bytes_per_s = link_mbit * 125_000.0;
        let conditions = Conditions {
            link_bytes_per_s,
            input_bytes_per_s,
            source_cores: cores,
            target_cores: cores,
        };
        let chosen = choose(&CodecRates::TYPICAL, &conditions);
        assert_eq!(chosen, expected, "{link_mbit} Mbit/s, {input_bytes_per_s} B/s, {cores} cores");
    }

    #[test]
    fn the_codec_is_never_the_bottleneck() {
        let unknown = f64::INFINITY;
        check(10.0, unknown, 0.5, Codec::Zstd(3));
        check(100.0, unknown, 1.0, Codec::Zstd(3));
        check(1_000.0, unknown, 1.0, Codec::Zstd(1));
        check(1_000.0, unknown, 2.0, Codec::Zstd(3));
        check(10_000.0, unknown, 1.0, Codec::Raw);
        check(10_000.0, unknown, 4.0, Codec::Lz4);
        // A slow engine leaves time to pack well, and a starved host has none.
        check(10_000.0, 2.0e8, 1.0, Codec::Zstd(3));
        check(1_000.0, unknown, 0.1, Codec::Raw);
    }

    #[test]
    fn the_choice_never_falls_behind_another_by_more_than_a_whisker() {
        for link in [1e6, 1e7, 1e8, 1e9, 1e10] {
            for cores in [0.05, 0.5, 1.0, 3.0, 16.0] {
                let conditions = Conditions {
                    link_bytes_per_s: link,
                    input_bytes_per_s: f64::INFINITY,
                    source_cores: cores,
                    target_cores: cores,
                };
                let chosen = choose(&CodecRates::TYPICAL, &conditions);
                let rate = |codec: Codec| {
                    let rates = CodecRates::TYPICAL.iter().find(|rates| rates.codec == codec);
                    plain_bytes_per_s(rates.unwrap(), &conditions)
                };
                for other in CodecRates::TYPICAL {
                    assert!(rate(chosen) >= EQUALLY_FAST * rate(other.codec), "{conditions:?}");
                }
            }
        }
    }

    #[test]
    fn measurements_move_the_rates_slowly() {
        let mut rates = CodecRates::TYPICAL[2];
        rates.measure(1_000_000, 900_000, 0.01);
        assert!(rates.ratio > 0.345 && rates.ratio < 0.45, "{rates:?}");
        for _ in 0..100 {
            rates.measure(1_000_000, 900_000, 0.01);
        }
        assert!((rates.ratio - 0.9).abs() < 0.01 && (rates.pack_bytes_per_s - 1e8).abs() < 1e6);
        rates.measure(0, 0, 0.0);
        assert!(rates.ratio.is_finite());
    }
}
