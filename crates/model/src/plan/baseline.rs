// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The CPU model and the machine type that fit a set of hosts.
//!
//! A guest that is given both in its file can go from each of them to each other one. Every host
//! has asked its own engine which models it can give wholly, and how much each gives; what all have
//! in common is looked for in the order of the first.

use crate::facts::{EngineFacts, HostFacts};
use crate::id::HostName;

/// What a guest may be given, so that it fits everywhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Baseline {
    pub hosts: Vec<HostName>,
    /// None: no named model is wholly available on all of them.
    pub cpu_model: Option<String>,
    /// None: they have no machine type in common.
    pub machine: Option<String>,
    /// Features that a guest can be given on all of them, sorted.
    pub features: Vec<String>,
    /// What single hosts have beyond that, by their names.
    pub beyond: Vec<(HostName, Vec<String>)>,
    /// The hosts do not run guests alike, so none can move between all of them.
    pub differ: Option<String>,
}

/// Compares hosts by the first engine each has; None where one has none, or there is no host.
pub fn baseline(hosts: &[HostFacts]) -> Option<Baseline> {
    let engines: Option<Vec<_>> =
        hosts.iter().map(|host| Some((&host.name, host.engines.first()?))).collect();
    let engines = engines?;
    let (_, first) = *engines.first()?;
    let all_have = |has: &dyn Fn(&EngineFacts) -> bool| engines.iter().all(|(_, e)| has(e));
    let features: Vec<_> = first
        .cpu_features
        .iter()
        .filter(|feature| all_have(&|engine| engine.cpu_features.contains(feature)))
        .cloned()
        .collect();
    let cpu_model = first
        .cpu_models
        .iter()
        .find(|model| all_have(&|engine| engine.cpu_models.contains(model)))
        .cloned();
    // Sorted from old to new, family by family: the newest of the default's own family.
    let family = |machine: &str| machine.rsplit_once('-').map(|(family, _)| family.to_owned());
    let machine = first
        .machines
        .iter()
        .rev()
        .filter(|machine| family(machine) == family(&first.machine_default))
        .find(|machine| all_have(&|engine| engine.machines.contains(machine)))
        .cloned();
    let beyond = engines.iter().map(|(name, engine)| {
        let more = engine.cpu_features.iter().filter(|feature| !features.contains(feature));
        ((*name).clone(), more.cloned().collect())
    });
    let beyond: Vec<(HostName, Vec<String>)> = beyond.collect();
    let is_alike =
        all_have(&|engine| (engine.kind, engine.accelerator) == (first.kind, first.accelerator));
    let differ = (!is_alike).then(|| {
        let said = engines.iter().map(|(name, engine)| {
            format!("`{name}` {:?} with {:?}", engine.kind, engine.accelerator)
        });
        format!("they do not run guests alike: {}", said.collect::<Vec<_>>().join(", "))
    });
    Some(Baseline {
        hosts: engines.iter().map(|(name, _)| (*name).clone()).collect(),
        cpu_model,
        machine,
        features,
        beyond,
        differ,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::passport::Accelerator;
    use crate::sample;

    fn host(name: &str, change: impl FnOnce(&mut EngineFacts)) -> HostFacts {
        let mut host = sample::host_facts(name);
        change(&mut host.engines[0]);
        host
    }

    #[test]
    fn what_all_have_is_found() {
        let alpha = host("alpha", |engine| {
            engine.machines = ["pc-q35-7.2", "pc-q35-9.0", "pc-q35-10.0"].map(Into::into).into();
            engine.machine_default = "pc-q35-10.0".to_owned();
            engine.cpu_models = ["Haswell-v4", "Westmere-v1", "Nehalem-v1"].map(Into::into).into();
        });
        let beta = host("beta", |engine| {
            engine.machines = ["pc-i440fx-7.2", "pc-q35-7.1", "pc-q35-7.2"].map(Into::into).into();
            engine.cpu_models = ["Westmere-v1", "Nehalem-v1"].map(Into::into).into();
            engine.cpu_features = ["sse2", "ssse3"].map(Into::into).into();
        });
        let found = baseline(&[alpha.clone(), beta.clone()]).unwrap();
        assert_eq!(found.cpu_model.as_deref(), Some("Westmere-v1"));
        assert_eq!(found.machine.as_deref(), Some("pc-q35-7.2"));
        assert_eq!(found.features, ["sse2", "ssse3"]);
        assert_eq!(found.beyond[0].1, ["sse4.1"]);
        assert_eq!((found.beyond[1].1.len(), found.differ), (0, None));
        // Whoever is asked first, the answer is one that fits.
        let turned = baseline(&[beta, alpha]).unwrap();
        assert_eq!(turned.cpu_model, Some("Westmere-v1".to_owned()));
        assert_eq!(turned.machine, Some("pc-q35-7.2".to_owned()));
    }

    #[test]
    fn hosts_with_nothing_in_common_say_so() {
        let kvm = host("beta", |engine| {
            engine.accelerator = Accelerator::Kvm;
            engine.cpu_models = vec!["EPYC-v1".to_owned()];
            engine.machines = vec!["pc-q35-11.0".to_owned()];
        });
        let found = baseline(&[sample::host_facts("alpha"), kvm]).unwrap();
        assert_eq!((found.cpu_model, found.machine), (None, None));
        assert!(found.differ.unwrap().contains("Kvm"));
        assert_eq!(baseline(&[]), None);
        let bare = HostFacts { engines: Vec::new(), ..sample::host_facts("beta") };
        assert_eq!(baseline(&[bare]), None);
    }
}
