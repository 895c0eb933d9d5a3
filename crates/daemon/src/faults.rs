// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The fault points of the daemon, for the crash matrix; empty in everything that is shipped.
//!
//! `fault_point!` is put where all of a kind pass: effects, messages, calls and events of an
//! engine. What the names mean, and what must come of a fault there, is written down in
//! `e2e/src/matrix/points.rs`.

/// Passes a named point; nothing in what is shipped.
macro_rules! fault_point {
    ($($name:tt)+) => {
        #[cfg(feature = "fault-points")]
        whimbrel_host::faults::pass(&format!($($name)+)).await;
    };
}

#[cfg(feature = "fault-points")]
pub(crate) use points::{Stoppable, head, name_of, repeats};

#[cfg(feature = "fault-points")]
mod points {
    use async_trait::async_trait;
    use std::collections::BTreeSet;
    use std::fmt::Debug;
    use std::path::{Path, PathBuf};
    use std::sync::Arc;
    use std::time::Duration;
    use tokio::sync::broadcast;
    use whimbrel_engine::{
        Adopt, ChannelEnd, Described, Engine, EngineError, EngineEvent, Foreign, HostMemory,
        Instance, Launch, Migration, MigrationOptions, Process, Tuning,
    };
    use whimbrel_handoff::effect::Effect;
    use whimbrel_handoff::record::Standing;
    use whimbrel_host::faults::{Passed, pass};
    use whimbrel_model::facts::{EngineFacts, UefiFacts};
    use whimbrel_model::guest::Guest;
    use whimbrel_model::id::GuestId;
    use whimbrel_model::passport::{EngineKind, Passport};
    use whimbrel_model::run_state::RunState;
    use whimbrel_model::units::Bytes;

    /// Passes a point, and says whether what follows is to happen twice.
    pub(crate) async fn repeats(point: &str) -> bool {
        pass(point).await == Passed::Repeat
    }

    /// Returns the name of a variant.
    pub(crate) fn head(value: &impl Debug) -> String {
        let text = format!("{value:?}");
        text.split([' ', '(', '{']).next().unwrap_or_default().to_owned()
    }

    /// Names an effect as a point.
    pub(crate) fn name_of(effect: &Effect) -> String {
        match effect {
            Effect::Persist(record) => match record.standing {
                Standing::Owned { mending: Some(_), .. } => "persist/Mending".to_owned(),
                standing => format!("persist/{}", head(&standing)),
            },
            Effect::Send { message, .. } => format!("send/{}", message.body.name()),
            Effect::Report(outcome) => format!("report/{}", head(outcome)),
            effect => format!("effect/{}", head(effect)),
        }
    }

    /// An engine, or an instance of one, whose every call is a point.
    pub(crate) struct Stoppable<T: ?Sized>(pub(crate) Arc<T>);

    #[async_trait]
    impl Engine for Stoppable<dyn Engine> {
        fn makes_own_taps(&self) -> bool {
            self.0.makes_own_taps()
        }

        fn kind(&self) -> EngineKind {
            self.0.kind()
        }

        fn uefi(&self, directory: &Path, passport: &Passport) -> Option<UefiFacts> {
            self.0.uefi(directory, passport)
        }

        async fn facts(&self) -> Result<EngineFacts, EngineError> {
            self.0.facts().await
        }

        async fn memory(&self) -> Result<Option<HostMemory>, EngineError> {
            self.0.memory().await
        }

        async fn freeze(&self, id: GuestId, guest: &Guest) -> Result<Passport, EngineError> {
            self.0.freeze(id, guest).await
        }

        async fn launch(&self, launch: Launch) -> Result<Arc<dyn Instance>, EngineError> {
            pass("engine/launch").await;
            Ok(Arc::new(Stoppable(self.0.launch(launch).await?)))
        }

        async fn attach(
            &self,
            id: GuestId,
            directory: &Path,
        ) -> Result<Option<Arc<dyn Instance>>, EngineError> {
            let found = self.0.attach(id, directory).await?;
            Ok(found.map(|instance| Arc::new(Stoppable(instance)) as Arc<dyn Instance>))
        }

        async fn end_unused(&self, id: GuestId, directory: &Path) -> Result<bool, EngineError> {
            self.0.end_unused(id, directory).await
        }

        fn foreign_tool(&self) -> Option<&'static str> {
            self.0.foreign_tool()
        }

        async fn foreign(&self, ours: &BTreeSet<GuestId>) -> Result<Vec<Foreign>, EngineError> {
            self.0.foreign(ours).await
        }

        async fn describe(&self, foreign: &Foreign) -> Result<Described, EngineError> {
            self.0.describe(foreign).await
        }

        async fn adopt(&self, adopt: Adopt) -> Result<Arc<dyn Instance>, EngineError> {
            Ok(Arc::new(Stoppable(self.0.adopt(adopt).await?)))
        }
    }

    #[async_trait]
    impl Instance for Stoppable<dyn Instance> {
        fn process(&self) -> Process {
            self.0.process()
        }

        fn has_run(&self) -> bool {
            self.0.has_run()
        }

        async fn run_state(&self) -> Result<RunState, EngineError> {
            pass("engine/run_state").await;
            self.0.run_state().await
        }

        async fn hindrances(&self) -> Result<Vec<String>, EngineError> {
            self.0.hindrances().await
        }

        async fn dirty_rate(&self) -> Result<Option<Bytes>, EngineError> {
            self.0.dirty_rate().await
        }

        async fn pause(&self) -> Result<(), EngineError> {
            pass("engine/pause").await;
            self.0.pause().await
        }

        async fn resume(&self) -> Result<(), EngineError> {
            pass("engine/resume").await;
            self.0.resume().await
        }

        async fn power_down(&self) -> Result<(), EngineError> {
            self.0.power_down().await
        }

        async fn reset(&self) -> Result<(), EngineError> {
            self.0.reset().await
        }

        async fn destroy(&self) -> Result<(), EngineError> {
            pass("engine/destroy").await;
            self.0.destroy().await
        }

        fn events(&self) -> broadcast::Receiver<EngineEvent> {
            self.0.events()
        }

        fn console(&self) -> Option<PathBuf> {
            self.0.console()
        }

        async fn cpu_time(&self) -> Result<Duration, EngineError> {
            self.0.cpu_time().await
        }

        async fn set_memory_target(&self, target: Bytes) -> Result<(), EngineError> {
            self.0.set_memory_target(target).await
        }

        async fn receive(&self, options: MigrationOptions) -> Result<ChannelEnd, EngineError> {
            pass("engine/receive").await;
            self.0.receive(options).await
        }

        async fn send(
            &self,
            options: MigrationOptions,
            channels: ChannelEnd,
        ) -> Result<(), EngineError> {
            pass("engine/send").await;
            self.0.send(options, channels).await
        }

        /// The point lies behind the answer and is named after it: what is seen is acted on.
        async fn migration(&self) -> Result<Migration, EngineError> {
            let migration = self.0.migration().await?;
            pass(&format!("engine/migration/{}", head(&migration))).await;
            Ok(migration)
        }

        async fn retune(&self, tuning: Tuning) -> Result<(), EngineError> {
            self.0.retune(tuning).await
        }

        async fn cancel(&self) -> Result<Migration, EngineError> {
            pass("engine/cancel").await;
            self.0.cancel().await
        }

        async fn announce(&self) -> Result<(), EngineError> {
            pass("engine/announce").await;
            self.0.announce().await
        }
    }
}
