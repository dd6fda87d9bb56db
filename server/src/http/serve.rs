//! The accept loop. `axum::serve` sets no timer, so that a client which never finishes its headers would hold a connection
//! for good; here every wait has an end, and so has the number of connections.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tower::Service;

use super::HttpLimits;

/// For the headers of a request, and for the next request on an idle connection.
const HEADER_TIMEOUT: Duration = Duration::from_secs(60);
/// For the first request of a connection: one that was opened for nothing must not hold its slot for long.
const FIRST_REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// For all headers of a request, and for what is read ahead of a body.
const MAX_BUFFER_BYTES: usize = 64 * 1024;
const MAX_HEADER_BYTES: u32 = 16 * 1024;
const MAX_STREAMS: u32 = 256;
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// For the first requests of the connections accepted last: they are on their way when the listener closes.
const LAST_REQUESTS: Duration = Duration::from_millis(100);
/// After an accept that failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves until `shutdown` ends; then takes no new connections and finishes the requests under way.
///
/// # Errors
/// When the listener cannot be read one last time. A failed accept is logged and tried again.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    limits: HttpLimits,
    shutdown: impl Future<Output = ()>,
) -> std::io::Result<()> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT).max_buf_size(MAX_BUFFER_BYTES);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEADER_BYTES)
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE);
    let graceful = GracefulShutdown::new();
    let slots = Arc::new(Semaphore::new(limits.max_connections));
    let serve_one = |stream: TcpStream, slot: OwnedSemaphorePermit| {
        // Small answers must not wait for the acknowledgement of the one before.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY was not set");
        }
        let router = router.clone();
        let has_asked = Arc::new(AtomicBool::new(false));
        let asked = has_asked.clone();
        let service = service_fn(move |request: hyper::Request<Incoming>| {
            asked.store(true, Ordering::Relaxed);
            router.clone().call(request)
        });
        let connection = graceful.watch(builder.serve_connection(TokioIo::new(stream), service).into_owned());
        tokio::spawn(async move {
            let _slot = slot;
            let mut connection = pin!(connection);
            // Telling HTTP/1 from HTTP/2 has no timeout of its own.
            let ended = match tokio::time::timeout(FIRST_REQUEST_TIMEOUT, &mut connection).await {
                Ok(ended) => ended,
                Err(_) if has_asked.load(Ordering::Relaxed) => connection.await,
                Err(_) => return tracing::debug!("a connection asked nothing in time"),
            };
            if let Err(error) = ended {
                tracing::debug!(%error, "a connection broke");
            }
        });
    };
    let mut shutdown = pin!(shutdown);
    loop {
        // A connection is accepted only when there is a slot for it; until then it waits in the kernel's queue.
        let next = async {
            let slot = slots.clone().acquire_owned().await;
            (slot, listener.accept().await)
        };
        let next = tokio::select! {
            biased;
            () = &mut shutdown => break,
            next = next => next,
        };
        match next {
            (Ok(slot), Ok((stream, _))) => serve_one(stream, slot),
            (Ok(_), Err(error)) => {
                tracing::warn!(%error, "a connection was not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
            // Nobody closes the semaphore.
            (Err(_), _) => break,
        }
    }
    // What waits in the kernel's queue would be reset with the listener, request and all.
    let listener = listener.into_std()?;
    while let Ok(slot) = slots.clone().try_acquire_owned()
        && let Ok((stream, _)) = listener.accept()
    {
        stream.set_nonblocking(true)?;
        serve_one(TcpStream::from_std(stream)?, slot);
    }
    drop(listener);
    tokio::time::sleep(LAST_REQUESTS).await;
    if tokio::time::timeout(limits.drain, graceful.shutdown()).await.is_err() {
        tracing::warn!(after = ?limits.drain, "some requests were not finished in time");
    }
    Ok(())
}
