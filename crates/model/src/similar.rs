// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! "Did you mean …?"

/// Returns the candidate that looks most like what was typed, if one looks like it at all.
///
/// Short words must match almost exactly, long ones may have a few typing errors.
pub fn similar<'a>(typed: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let typed = typed.to_lowercase();
    candidates
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(&typed, &candidate.to_lowercase()), candidate))
        .filter(|&(likeness, _)| likeness > 0.8)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, candidate)| candidate)
}

/// Returns ` (did you mean `x`?)`, or nothing.
pub fn hint<'a>(typed: &str, candidates: impl IntoIterator<Item = &'a str>) -> String {
    similar(typed, candidates).map(|name| format!(" (did you mean `{name}`?)")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_are_found_and_far_ones_are_not() {
        let check = |typed, expected| {
            assert_eq!(similar(typed, ["memory", "vcpus", "name", "machine"]), expected, "{typed}");
        };
        check("memroy", Some("memory"));
        check("Memory", Some("memory"));
        check("vcpu", Some("vcpus"));
        check("mashine", Some("machine"));
        check("bridge", None);
        check("", None);
        assert_eq!(hint("nam", ["name"]), " (did you mean `name`?)");
    }
}
