//! A proxy before PostgreSQL that reads enough of what the client says to cut the connection exactly at a COMMIT.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

/// Where the connection breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// The server never hears of the COMMIT.
    Before,
    /// The server gets the COMMIT; the connection breaks at once, while it may still be at it.
    During,
    /// The server has committed and said so; the client never hears of it.
    After,
}

pub struct Proxy {
    pub address: SocketAddr,
    /// For the next COMMIT.
    next_cut: Arc<Mutex<Option<Cut>>>,
    closed: Arc<AtomicBool>,
}

impl Proxy {
    pub async fn start(upstream: String) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("its address");
        let next_cut = Arc::new(Mutex::new(None));
        let closed = Arc::new(AtomicBool::new(false));
        let (cut, is_closed) = (next_cut.clone(), closed.clone());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if is_closed.load(Ordering::Relaxed) {
                    continue;
                }
                // While the server is down, its clients are turned away.
                let Ok(server) = TcpStream::connect(&upstream).await else { continue };
                for stream in [&client, &server] {
                    stream.set_nodelay(true).expect("TCP_NODELAY");
                }
                tokio::spawn(relay(client, server, cut.clone()));
            }
        });
        Proxy { address, next_cut, closed }
    }

    /// Turns new connections away, or takes them again; those there are go on.
    pub fn close(&self, closed: bool) {
        self.closed.store(closed, Ordering::Relaxed);
    }

    pub fn cut_next_commit(&self, cut: Cut) {
        *self.next_cut.lock() = Some(cut);
    }

    /// True when the ordered cut has taken place.
    pub fn has_cut(&self) -> bool {
        self.next_cut.lock().is_none()
    }
}

/// Carries messages both ways until one side is gone or the cut is made; then drops both.
async fn relay(client: TcpStream, server: TcpStream, next_cut: Arc<Mutex<Option<Cut>>>) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let cut = {
        let answers = async {
            let _ = tokio::io::copy(&mut from_server, &mut to_client).await;
            None
        };
        tokio::select! {
            cut = carry_questions(&mut from_client, &mut to_server, &next_cut) => cut,
            cut = answers => cut,
        }
    };
    match cut {
        Some((Cut::During, commit)) => {
            let _ = to_server.write_all(&commit).await;
        }
        Some((Cut::After, commit)) => {
            to_server.write_all(&commit).await.expect("the server listens");
            wait_until_idle(&mut from_server).await;
        }
        Some((Cut::Before, _)) | None => {}
    }
}

/// Forwards what the client says, message by message, up to a COMMIT that is to be cut: that one is given back.
async fn carry_questions(
    from: &mut OwnedReadHalf,
    to: &mut OwnedWriteHalf,
    next_cut: &Mutex<Option<Cut>>,
) -> Option<(Cut, Vec<u8>)> {
    // The first message has no type.
    let start = message(from, 0).await?;
    to.write_all(&start).await.ok()?;
    loop {
        let message = message(from, 1).await?;
        if message[0] == b'Q' && &message[5..] == b"COMMIT\0" {
            let cut = next_cut.lock().take();
            if let Some(cut) = cut {
                return Some((cut, message));
            }
        }
        to.write_all(&message).await.ok()?;
    }
}

/// Reads one message: `type_bytes` of a type, four of a length that counts itself, and the rest.
async fn message(from: &mut OwnedReadHalf, type_bytes: usize) -> Option<Vec<u8>> {
    let mut message = vec![0; type_bytes + 4];
    from.read_exact(&mut message).await.ok()?;
    let length = u32::from_be_bytes(message[type_bytes..].try_into().ok()?) as usize;
    message.resize(type_bytes + length, 0);
    from.read_exact(&mut message[type_bytes + 4..]).await.ok()?;
    Some(message)
}

/// Reads until the server says that it is ready and in no transaction: `Z`, length 5, `I`.
async fn wait_until_idle(from: &mut OwnedReadHalf) {
    const IDLE: &[u8] = &[b'Z', 0, 0, 0, 5, b'I'];
    let mut read = Vec::new();
    while !read.ends_with(IDLE) {
        assert!(from.read_buf(&mut read).await.expect("the server answers") > 0, "the server is gone");
    }
}
