// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Which path is which operation.

use super::answer::{Refusal, no_such_method, no_such_path};
use super::{Backend, guests, hosts, pages, streams};
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{delete, get, post, put};
use std::sync::Arc;
use tokio::sync::watch;
use whimbrel_api::limits::BODY_BYTES_MAX;
use whimbrel_api::{Kind, Problem};

/// What every handler has.
#[derive(Clone)]
pub(super) struct App {
    pub(super) backend: Arc<dyn Backend>,
    /// Becomes true when the server ends, so that streams end, too.
    pub(super) stop: watch::Receiver<bool>,
}

impl App {
    /// Runs an operation that changes something in a task of its own, so that it is finished also
    /// if the client goes away.
    pub(super) async fn finish<T: Send + 'static>(
        &self,
        operation: impl Future<Output = Result<T, Problem>> + Send + 'static,
    ) -> Result<T, Refusal> {
        let ended = |_| {
            Problem::new(
                Kind::Failed,
                whimbrel_api::problem::code::CONNECTION_LOST,
                "the daemon ended while it worked on this",
                "see what became of it with `whimbrel list` and `whimbrel log`",
            )
        };
        Ok(tokio::spawn(operation).await.map_err(ended)??)
    }
}

/// Returns once the server ends.
pub(super) async fn stopped(mut stop: watch::Receiver<bool>) {
    // An error means that the server is gone already.
    let _ = stop.wait_for(|is_stopped| *is_stopped).await;
}

pub(super) fn build(app: App) -> Router {
    Router::new()
        .route("/v1/host", get(hosts::host))
        .route("/v1/reload", post(hosts::reload))
        .route("/v1/relocation", get(hosts::relocation).put(hosts::set_relocation))
        .route("/v1/hosts", get(hosts::hosts).post(hosts::join))
        .route("/v1/baseline", get(hosts::baseline))
        .route("/v1/hosts/{host}", delete(hosts::forget))
        .route("/v1/invitation", post(hosts::invite).delete(hosts::close_invitation))
        .route("/v1/guests", get(guests::list).post(guests::create))
        .route("/v1/guests/{guest}", get(guests::show).delete(guests::remove))
        .route("/v1/guests/{guest}/definition", put(guests::edit))
        .route("/v1/guests/{guest}/start", post(guests::start))
        .route("/v1/guests/{guest}/adopt", post(guests::adopt))
        .route("/v1/guests/{guest}/stop", post(guests::stop))
        .route("/v1/guests/{guest}/reboot", post(guests::reboot))
        .route("/v1/guests/{guest}/pause", post(guests::pause))
        .route("/v1/guests/{guest}/unpause", post(guests::unpause))
        .route("/v1/guests/{guest}/console", get(streams::console))
        .route("/v1/guests/{guest}/plan", post(guests::plan))
        .route("/v1/guests/{guest}/migrate", post(guests::migrate))
        .route("/v1/guests/{guest}/cancel", post(guests::cancel))
        .route("/v1/guests/{guest}/cutover", post(guests::cut_over))
        .route("/v1/guests/{guest}/report", get(guests::report))
        .route("/v1/guests/{guest}/recovery", get(guests::recovery).post(guests::recover))
        .route("/v1/migrations", get(guests::migrations))
        .route("/v1/migrations/{id}", get(guests::migration))
        .route("/v1/reports", get(guests::reports))
        .route("/v1/pages", get(pages::list).delete(pages::drop_all))
        .route("/v1/pages/{guest}", delete(pages::drop_one))
        .route("/v1/log", get(streams::log))
        .route("/v1/events", get(streams::events))
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(app)
}
