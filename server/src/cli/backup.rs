//! `scrip backup` and `scrip restore`: a SQLite store as one consistent file, while it serves. PostgreSQL has tools of its own.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use indicatif::{HumanBytes, ProgressBar};

use super::StoreArgs;
use crate::store::{Store, StoreOptions, StoreUrl};
use crate::verify::verify;

/// Copies a SQLite store into one file. The server may run and write meanwhile; the copy is the store at one instant.
#[derive(Debug, Args)]
pub struct BackupArgs {
    /// The copy; it must not exist yet.
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    /// Do not run `scrip verify` on the copy.
    #[arg(long)]
    skip_verify: bool,
    #[command(flatten)]
    store: StoreArgs,
}

/// Puts a backup in the place of a SQLite store. The server must be stopped; a store that is there is kept beside it.
#[derive(Debug, Args)]
pub struct RestoreArgs {
    /// The backup.
    #[arg(long, value_name = "FILE")]
    input: PathBuf,
    #[command(flatten)]
    store: StoreArgs,
}

impl BackupArgs {
    pub async fn run(self) -> anyhow::Result<()> {
        let path = sqlite_path(&self.store)?;
        anyhow::ensure!(path.is_file(), "there is no store at {}; name one with --store", path.display());
        anyhow::ensure!(!self.output.exists(), "{} exists already; name another file", self.output.display());
        let output = self.output.clone();
        let bar = ProgressBar::new_spinner().with_message(format!("copying {}", path.display()));
        bar.enable_steady_tick(std::time::Duration::from_millis(200));
        tokio::task::spawn_blocking(move || copy(&path, &output)).await??;
        bar.finish_and_clear();
        let bytes = std::fs::metadata(&self.output)?.len();
        println!("{}: {}", self.output.display(), HumanBytes(bytes));
        if self.skip_verify {
            return Ok(());
        }
        require_sound(&self.output).await
    }
}

impl RestoreArgs {
    pub async fn run(self) -> anyhow::Result<()> {
        let path = sqlite_path(&self.store)?;
        anyhow::ensure!(self.input.is_file(), "there is no backup at {}", self.input.display());
        let next = with_suffix(&path, ".restoring");
        let _ = std::fs::remove_file(&next);
        copy(&self.input, &next)?;
        require_sound(&next).await?;
        if path.exists() {
            // Only an exclusive lock shows that no server writes there any more.
            lock_exclusively(&path)?;
            let kept = with_suffix(&path, &format!(".before-restore-{}", crate::clock::now().0));
            for suffix in ["", "-wal", "-shm"] {
                let from = with_suffix(&path, suffix);
                if from.exists() {
                    std::fs::rename(&from, with_suffix(&kept, suffix))
                        .with_context(|| format!("cannot move {} away", from.display()))?;
                }
            }
            println!("The store that was there is kept as {}.", kept.display());
        }
        for suffix in ["-wal", "-shm"] {
            let _ = std::fs::remove_file(with_suffix(&next, suffix));
        }
        std::fs::rename(&next, &path).with_context(|| format!("cannot put {} in place", path.display()))?;
        sync_folder(&path)?;
        println!("{} is restored.", path.display());
        Ok(())
    }
}

fn sqlite_path(store: &StoreArgs) -> anyhow::Result<PathBuf> {
    match store.settings()?.store.options()?.url {
        StoreUrl::Sqlite(path) => Ok(path),
        StoreUrl::Postgres(_) => anyhow::bail!(
            "PostgreSQL is backed up by its own tools: pg_basebackup with a WAL archive; see docs/OPERATIONS.md"
        ),
    }
}

/// A consistent copy without free pages, on the disk when this returns.
fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    let part = with_suffix(to, ".part");
    let _ = std::fs::remove_file(&part);
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY | rusqlite::OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = rusqlite::Connection::open_with_flags(from, flags)
        .with_context(|| format!("cannot open {}", from.display()))?;
    let name = part.to_str().with_context(|| format!("{} is no UTF-8 path", part.display()))?;
    connection
        .execute("VACUUM INTO ?1", [name])
        .with_context(|| format!("cannot copy {} to {}", from.display(), part.display()))?;
    File::open(&part)?.sync_all().with_context(|| format!("cannot sync {}", part.display()))?;
    std::fs::rename(&part, to).with_context(|| format!("cannot write {}", to.display()))?;
    sync_folder(to)
}

fn sync_folder(path: &Path) -> anyhow::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all().with_context(|| format!("cannot sync {}", folder.display()))
}

fn lock_exclusively(path: &Path) -> anyhow::Result<()> {
    let connection = rusqlite::Connection::open(path)?;
    connection.busy_timeout(std::time::Duration::from_secs(1))?;
    // In exclusive mode the log is gone with the connection, so the file stands for itself.
    connection
        .execute_batch("PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE; COMMIT; PRAGMA journal_mode = DELETE;")
        .with_context(|| format!("{} is in use; stop the server first", path.display()))
}

async fn require_sound(path: &Path) -> anyhow::Result<()> {
    let store = Store::open(&StoreOptions::new(StoreUrl::Sqlite(path.to_owned()))).await?;
    store.ping().await.with_context(|| format!("{} is no Scrip store", path.display()))?;
    let report = verify(&store, None, |_, _, _| {}).await?;
    println!("verify: {}", report.summary());
    anyhow::ensure!(report.is_clean(), "{} does not verify; keep it as evidence, use another backup", path.display());
    Ok(())
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
