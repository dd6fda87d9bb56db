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
/// For connections that were being made when the server was told to stop: a round trip in one data centre. Whoever asks for one
/// meanwhile waits a second, so no longer.
const LAST_ARRIVALS: Duration = Duration::from_millis(5);
/// For the first requests of the connections accepted last: they are on their way when the listener closes.
const LAST_REQUESTS: Duration = Duration::from_millis(500);
/// How often is looked whether all connections have ended before that.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// After an accept that failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves until `shutdown` ends; then takes no new connections and finishes the requests under way. A failed accept is logged
/// and tried again.
pub async fn serve(listener: TcpListener, router: Router, limits: HttpLimits, shutdown: impl Future<Output = ()>) {
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
    // What is in the kernel's queue when the listener ends is reset, request and all. So no more may begin to join it, and what has
    // begun is served.
    refuse_newcomers(&listener);
    let last_arrivals = tokio::time::sleep(LAST_ARRIVALS);
    let mut last_arrivals = pin!(last_arrivals);
    loop {
        let accepted = tokio::select! {
            biased;
            accepted = listener.accept() => accepted,
            () = &mut last_arrivals => break,
        };
        let (Ok(slot), Ok((stream, _))) = (slots.clone().try_acquire_owned(), accepted) else { break };
        serve_one(stream, slot);
    }
    drop(listener);
    let closes_at = tokio::time::Instant::now() + LAST_REQUESTS;
    while slots.available_permits() < limits.max_connections && tokio::time::Instant::now() < closes_at {
        tokio::time::sleep(LOOK_EVERY).await;
    }
    if tokio::time::timeout(limits.drain, graceful.shutdown()).await.is_err() {
        tracing::warn!(after = ?limits.drain, "some requests were not finished in time");
    }
}

/// Lets no new connection begin, by a filter that drops the packets which ask for one. Whoever asks is refused at the next attempt,
/// a second later, when the listener is closed: nothing was sent by then, so the client may go elsewhere. Connections half made
/// go on being made. Without the filter, one could be made between the last look into the queue and the listener's end.
fn refuse_newcomers(listener: &TcpListener) {
    #[cfg(target_os = "linux")]
    {
        use socket2::SockFilter;
        // Classic BPF over the TCP header: all but the first packet of a connection has the flag ACK (0x10 of byte 13).
        let only_known = [
            SockFilter::new(0x30, 0, 0, 13),
            SockFilter::new(0x45, 0, 1, 0x10),
            SockFilter::new(0x06, 0, 0, u32::MAX),
            SockFilter::new(0x06, 0, 0, 0),
        ];
        if let Err(error) = socket2::SockRef::from(listener).attach_filter(&only_known) {
            tracing::debug!(%error, "a connection made in the next moment may be reset");
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = listener;
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const ROUNDS: usize = 6;
    const CLIENTS: usize = 32;

    /// Requests until nobody listens any more; how many were answered. Each has a connection of its own.
    async fn ask(address: std::net::SocketAddr) -> std::io::Result<usize> {
        for answered in 0.. {
            let Ok(mut stream) = TcpStream::connect(address).await else { return Ok(answered) };
            stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await?;
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await?;
            if !answer.starts_with(b"HTTP/1.1 200") {
                return Err(std::io::Error::other(String::from_utf8_lossy(&answer).into_owned()));
            }
        }
        unreachable!("a range without an end")
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn whoever_connects_while_the_listener_closes_is_answered_or_refused() {
        let limits = HttpLimits {
            max_connections: 1_000,
            max_body_bytes: 0,
            max_batch_bytes: 0,
            max_upload_bytes: 0,
            drain: Duration::from_secs(5),
            quota: crate::http::quota::QuotaOptions::default(),
        };
        for round in 0..ROUNDS {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let address = listener.local_addr().expect("an address");
            let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
            let router = Router::new().route("/", axum::routing::get(|| async { "here" }));
            let server = tokio::spawn(serve(listener, router, limits.clone(), async move { drop(stopped.await) }));
            let clients: Vec<_> = (0..CLIENTS).map(|_| tokio::spawn(ask(address))).collect();
            tokio::time::sleep(Duration::from_millis(20)).await;
            stop.send(()).expect("the server runs");
            let mut answered = 0;
            for client in clients {
                answered += client.await.expect("a client").unwrap_or_else(|error| panic!("round {round}: {error}"));
            }
            assert!(answered > 0);
            server.await.expect("the server");
        }
    }
}
