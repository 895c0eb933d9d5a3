// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The accept loop: who calls, how many at once, and an orderly end.

use super::router::{self, App};
use super::socket::Socket;
use super::{Backend, Caller};
use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

/// Most connections served at once; further ones wait.
const CONNECTIONS_MAX: usize = 256;
/// Longest a client may take to send the head of a request.
const HEADER_TIME_MAX: Duration = Duration::from_secs(30);
/// Most bytes of a request's head.
const HEADER_BYTES_MAX: usize = 64 << 10;
/// Longest to wait at the end for requests that are under way.
const GRACE_TIME_MAX: Duration = Duration::from_secs(5);
/// How long to wait after the machine had no descriptor for another connection.
const ACCEPT_RETRY_TIME: Duration = Duration::from_millis(100);

/// Serves the API until `shutdown` completes. Streams are ended then, other requests are given a
/// few seconds.
pub async fn serve(socket: Socket, backend: Arc<dyn Backend>, shutdown: impl Future<Output = ()>) {
    let stop = watch::Sender::new(false);
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let app = App { backend, stop: stop.subscribe() };
    tokio::select! {
        () = accept_all(&socket, &app, &places) => {}
        () = shutdown => {}
    }
    drop(socket);
    stop.send_replace(true);
    // Every connection has given its place back once all places are free.
    let all = u32::try_from(CONNECTIONS_MAX).expect("a few hundred");
    if tokio::time::timeout(GRACE_TIME_MAX, places.acquire_many(all)).await.is_err() {
        tracing::warn!("some API requests were still under way at the end");
    }
}

async fn accept_all(socket: &Socket, app: &App, places: &Arc<Semaphore>) {
    let router = router::build(app.clone());
    loop {
        let place = Arc::clone(places).acquire_owned().await.expect("never closed");
        match accept(&socket.listener).await {
            Ok((_, Caller { uid })) if socket.refused_uid == Some(uid) => {
                tracing::warn!(uid, "an engine called the API, and was turned away");
            }
            Ok((stream, caller)) => {
                let connection = Connection { stream, caller, place };
                tokio::spawn(connection.serve(router.clone(), app.stop.clone()));
            }
            Err(error) => {
                tracing::warn!(%error, "an API connection was not accepted");
                tokio::time::sleep(ACCEPT_RETRY_TIME).await;
            }
        }
    }
}

async fn accept(listener: &UnixListener) -> io::Result<(UnixStream, Caller)> {
    let (stream, _) = listener.accept().await?;
    let uid = stream.peer_cred()?.uid();
    Ok((stream, Caller { uid }))
}

struct Connection {
    stream: UnixStream,
    caller: Caller,
    place: OwnedSemaphorePermit,
}

impl Connection {
    async fn serve(self, router: Router, stop: watch::Receiver<bool>) {
        let Self { stream, caller, place } = self;
        let service = router.layer(axum::Extension(caller));
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIME_MAX)
            .max_buf_size(HEADER_BYTES_MAX)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service))
            .with_upgrades();
        let mut connection = pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = router::stopped(stop) => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(uid = caller.uid, %error, "an API connection broke");
        }
        drop(place);
    }
}
