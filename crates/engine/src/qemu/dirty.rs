// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! How much a guest writes before it is moved.
//!
//! QEMU compares digests of a sample of pages before and after a second. That is a figure of whole
//! MiB, and of a small guest a coarse one; it costs the guest nothing.

use super::instance::QemuInstance;
use crate::error::EngineError;
use serde_json::json;
use std::time::Duration;
use tokio::time::Instant;
use whimbrel_model::units::Bytes;

const SAMPLE: Duration = Duration::from_secs(1);
/// How long it may take beyond that; a busy machine compares slowly.
const LATE_MAX: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Pages of each GiB that are compared: QEMU's own number is 512, few of a small guest.
const PAGES_A_GIB: u64 = 4096;

impl QemuInstance {
    pub(super) async fn sample_dirty_rate(&self) -> Result<Option<Bytes>, EngineError> {
        let what = json!({ "calc-time": SAMPLE.as_secs(), "sample-pages": PAGES_A_GIB });
        self.execute("calc-dirty-rate", what).await?;
        let deadline = Instant::now() + SAMPLE + LATE_MAX;
        tokio::time::sleep(SAMPLE).await;
        while Instant::now() < deadline {
            let answer = self.execute("query-dirty-rate", json!({})).await?;
            if answer["status"] == "measured" {
                return Ok(answer["dirty-rate"].as_u64().map(|mib| Bytes(mib << 20)));
            }
            // QEMU says nothing when it is done.
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(None)
    }
}
