//! A real PostgreSQL for the tests: `SCRIP_TEST_POSTGRES` when it is set, else a server of our own in a temporary folder.
//!
//! The own server is watched by a shell that holds a pipe from this process: when the tests end, however they end, the pipe
//! closes and the shell stops the server and removes its folder. A test that stops and starts its server has one to itself.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// A role that needs a password, on servers of our own; it is made by the test that wants it.
pub const GUARDED: &str = "guarded";

/// A server to make databases on.
pub struct Server {
    /// Without a database, for instance `postgres://postgres@127.0.0.1:5432`.
    pub base_url: String,
    watcher: Option<Watcher>,
}

/// A streaming replica of a server, on a port of its own.
pub struct Replica {
    base_url: String,
    port: u16,
    watcher: Watcher,
}

impl Replica {
    /// Copies the server and follows it from then on; it answers when this returns.
    pub fn of(primary: &Server) -> Replica {
        let programs = programs().expect("PostgreSQL is installed (make test installs it)");
        let folder = tempfile::Builder::new().prefix("scrip-pg-").tempdir().expect("a temporary folder").keep();
        let (port, primary_port) = (free_port(), primary.base_url.rsplit(':').next().expect("a port"));
        let begin = format!(
            r#"run "{}/pg_basebackup" -h 127.0.0.1 -p {primary_port} -U postgres -D "$dir/data" -R -X stream -c fast --no-sync >>"$dir/log" 2>&1"#,
            programs.display()
        );
        let watcher = watch(&programs, &folder, port, &begin);
        Replica { base_url: format!("postgres://postgres@127.0.0.1:{port}"), port, watcher }
    }

    /// The replica of a database of the primary.
    pub fn url_of(&self, primary: &str) -> String {
        let (before, after) = primary.rsplit_once(':').expect("a port");
        let (_, database) = after.split_once('/').expect("a database");
        format!("{before}:{}/{database}", self.port)
    }

    /// As [`Server::stop`].
    pub fn stop(&mut self, mode: &str) {
        self.watcher.order(mode);
    }

    /// As [`Server::start`].
    pub fn start(&mut self) {
        self.watcher.order("start");
    }

    /// Does what an administrator says.
    pub async fn ask(&self, sql: &str) {
        connect(&format!("{}/postgres", self.base_url)).await.batch_execute(sql).await.expect("the replica obeys");
    }
}

/// The shell that started the server. It takes orders by the line, and stops the server when the pipe closes.
struct Watcher {
    shell: Child,
    answers: BufReader<ChildStdout>,
}

impl Watcher {
    fn wait_for(&mut self, expected: &str) {
        let mut said = String::new();
        self.answers.read_line(&mut said).expect("the shell answers");
        assert_eq!(said.trim(), expected, "PostgreSQL did not do as told");
    }

    fn order(&mut self, order: &str) {
        let mut orders = self.shell.stdin.as_ref().expect("a pipe was asked for");
        writeln!(orders, "{order}").expect("the shell listens");
        self.wait_for("done");
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        // Closes the pipe first.
        let _ = self.shell.wait();
    }
}

impl Server {
    /// A server of the caller's own, which it may stop.
    pub fn own() -> Server {
        start()
    }

    /// Stops the server without waiting for anybody; with a `mode` of pg_ctl: `fast`, or `immediate` as in a crash.
    pub fn stop(&mut self, mode: &str) {
        self.watcher.as_mut().expect("a server of one's own").order(mode);
    }

    /// Starts the stopped server again and waits until it answers.
    pub fn start(&mut self) {
        self.watcher.as_mut().expect("a server of one's own").order("start");
    }

    /// A new, empty database; its URL.
    pub async fn database(&self) -> String {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let base = &self.base_url;
        let name = format!("scrip_{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let client = connect(&format!("{base}/postgres")).await;
        client.batch_execute(&format!("CREATE DATABASE {name}")).await.expect("a database can be made");
        format!("{base}/{name}")
    }
}

/// The server all tests of this process share.
pub fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| match std::env::var("SCRIP_TEST_POSTGRES") {
        Ok(url) => Server { base_url: url.trim_end_matches('/').to_owned(), watcher: None },
        Err(_) => start(),
    })
}

/// A connection of a test's own.
pub async fn connect(url: &str) -> tokio_postgres::Client {
    let (client, connection) =
        tokio_postgres::connect(url, tokio_postgres::NoTls).await.expect("the test server answers");
    tokio::spawn(connection);
    client
}

/// A new, empty database on the shared server; its URL.
pub async fn database() -> String {
    server().database().await
}

fn start() -> Server {
    let programs = programs().expect("PostgreSQL is installed (make test installs it)");
    let folder = tempfile::Builder::new().prefix("scrip-pg-").tempdir().expect("a temporary folder").keep();
    let port = free_port();
    let begin = format!(
        r#"run "{bin}/initdb" -D "$dir/data" -U postgres -A trust -E UTF8 --locale=C --no-sync >"$dir/log" 2>&1
        sed -i '1i host all {GUARDED} 127.0.0.1/32 scram-sha-256' "$dir/data/pg_hba.conf""#,
        bin = programs.display(),
    );
    let watcher = watch(&programs, &folder, port, &begin);
    Server { base_url: format!("postgres://postgres@127.0.0.1:{port}"), watcher: Some(watcher) }
}

/// Has a shell make the data by `begin`, start the server and watch over it.
fn watch(programs: &Path, folder: &Path, port: u16, begin: &str) -> Watcher {
    // initdb refuses root; Debian's package brings the user postgres.
    let is_root = Command::new("id").arg("-u").output().is_ok_and(|out| out.stdout.starts_with(b"0\n"));
    let script = format!(
        r#"set -e
        dir="{dir}"
        run() {{ if [ "{is_root}" = true ]; then runuser -u postgres -- "$@"; else "$@"; fi; }}
        start() {{ run "{bin}/pg_ctl" -D "$dir/data" -w -l "$dir/server.log" -o "-p {port} -k $dir -c listen_addresses=127.0.0.1 -c max_connections=400 -c shared_buffers=256MB" start >>"$dir/log" 2>&1; }}
        stop() {{ run "{bin}/pg_ctl" -D "$dir/data" -m "$1" -w stop >>"$dir/log" 2>&1; }}
        if [ "{is_root}" = true ]; then chown postgres "$dir"; fi
        {begin}
        start
        echo ready
        while read -r order; do
            if [ "$order" = start ]; then start; else stop "$order"; fi
            echo done
        done
        stop immediate || true
        rm -rf "$dir""#,
        dir = folder.display(),
        bin = programs.display(),
    );
    let mut shell = Command::new("sh")
        .args(["-c", &script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a shell to watch the server");
    let answers = BufReader::new(shell.stdout.take().expect("a pipe was asked for"));
    let mut watcher = Watcher { shell, answers };
    watcher.wait_for("ready");
    watcher
}

/// Where the server programs are: on the path, or where Debian keeps them.
fn programs() -> Option<PathBuf> {
    let debian = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut folders: Vec<PathBuf> = debian.map(|version| version.path().join("bin")).collect();
    folders.sort();
    folders.reverse();
    let path = std::env::var("PATH").unwrap_or_default();
    folders.extend(std::env::split_paths(&path));
    folders.into_iter().find(|folder: &PathBuf| has_programs(folder))
}

fn has_programs(folder: &Path) -> bool {
    folder.join("initdb").is_file() && folder.join("pg_ctl").is_file()
}

pub fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("its address").port()
}
