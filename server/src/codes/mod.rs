//! Coupon codes: made, hashed, looked up, imported and written out.
//!
//! A code's text exists in three places only: in the request that brings it, in the one export, and in memory between. Kept is
//! an HMAC of its normal form ([`text::normalise`]) under a key that the database does not have ([`key`]). Unique codes come
//! from a keyed permutation of a counter ([`permutation`]), so a batch is resumable, unique by construction, and can be written
//! out from its numbers; the end of the export destroys what they were made from. Guessing is bounded by the length that new
//! batches must have and by a budget of misses ([`guard`]).
//!
//! **Generation** is durable by the batch itself: its row says how far it is, each page of codes is one command that names the
//! place it follows, and whoever finds an unfinished batch goes on with it. Two nodes at one batch cannot double a code: one of
//! them is told that it is out of step.

pub mod guard;
pub mod key;
pub mod permutation;
pub mod text;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use parking_lot::Mutex;
use scrip_domain::coupon::{CodeBatch, CodeDigest, CodeKind, CodeStatus};
use scrip_domain::{Answer, CodeBatchId, Command, Envelope, Rejection, TenantId};
use tokio::sync::Notify;

use crate::clock;
use crate::engine::Engine;
use crate::metrics::Metrics;
use crate::store::{Store, StoreUrl};
use guard::Guard;
use key::CodeKeys;
use permutation::Permutation;
use text::Pattern;

/// Codes added by one command: a commit of some ten milliseconds, between which others have their turn.
pub const PAGE: i64 = 4_000;
/// How often unfinished batches are looked for when nobody says that there is one: after a restart, or another node's end.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// Batches looked at in one pass.
const BATCHES_PER_PASS: i64 = 100;

/// The keys and the guard of a server.
pub struct Codes {
    file: KeyFile,
    /// Read when first needed.
    keys: Mutex<Option<Arc<CodeKeys>>>,
    pub guard: Guard,
    /// Wakes the generation.
    wanted: Notify,
}

/// Where the keys are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyFile {
    At(PathBuf),
    /// Beside a SQLite file, made when first needed.
    Beside(PathBuf),
    /// A database that many servers share, and no setting that says where the key they share is.
    Missing,
}

impl KeyFile {
    /// That of `codes.key_file`, which may be empty.
    pub fn of(setting: &str, store: &StoreUrl) -> KeyFile {
        match store {
            _ if !setting.is_empty() => KeyFile::At(setting.into()),
            StoreUrl::Sqlite(path) => {
                let mut name = path.as_os_str().to_owned();
                name.push(".codes.key");
                KeyFile::Beside(name.into())
            }
            StoreUrl::Postgres(_) => KeyFile::Missing,
        }
    }

    pub fn path(&self) -> Option<&Path> {
        match self {
            KeyFile::At(path) | KeyFile::Beside(path) => Some(path),
            KeyFile::Missing => None,
        }
    }
}

impl Codes {
    pub fn new(file: KeyFile) -> Codes {
        Codes { file, keys: Mutex::default(), guard: Guard::default(), wanted: Notify::new() }
    }

    /// The keys, from memory after the first time. A key added to the file is used after a restart.
    ///
    /// # Errors
    /// When there is no file, or its keys are not those that the store's codes were made with.
    pub async fn keys(&self, store: &Store) -> anyhow::Result<Arc<CodeKeys>> {
        if let Some(keys) = self.keys.lock().clone() {
            return Ok(keys);
        }
        let known = store.code_keys().await?;
        let path = self.file.path().context(
            "many servers may share this store, so they need one file of code keys: make it with `scrip codes new-key` \
             and name it in codes.key_file",
        )?;
        if matches!(self.file, KeyFile::Beside(_)) && !path.exists() {
            ensure!(
                known.is_empty(),
                "{} is gone; put it back from its backup, or codes already given out cannot be claimed with",
                path.display()
            );
            CodeKeys::add_to(path)?;
        }
        let keys = CodeKeys::read(path)?;
        for key in keys.iter() {
            store.remember_code_key(key.id, key.check_value(), clock::now()).await?;
        }
        // What another server has remembered meanwhile counts as well.
        check(&keys, path, &store.code_keys().await?)?;
        let keys = Arc::new(keys);
        *self.keys.lock() = Some(keys.clone());
        Ok(keys)
    }

    /// Lets the generation look for unfinished batches now.
    pub fn wake(&self) {
        self.wanted.notify_one();
    }
}

/// # Errors
/// When the file lacks a key that the store knows, or has another under its number.
pub fn check(keys: &CodeKeys, path: &Path, known: &[(i64, [u8; 16])]) -> anyhow::Result<()> {
    for (id, check_value) in known {
        let own = keys.get(*id).with_context(|| format!("{} lacks the key {id} of other servers", path.display()))?;
        ensure!(own.check_value() == *check_value, "{}: the key {id} is another than before", path.display());
    }
    Ok(())
}

/// Goes on with every unfinished batch, until the task is dropped.
pub async fn run(codes: Arc<Codes>, store: Store, engine: Engine, metrics: Arc<Metrics>) {
    loop {
        let result = pass(&codes, &store, &engine).await;
        if let Err(error) = &result {
            tracing::warn!(error = format!("{error:#}"), "codes were not made; the next pass goes on");
        }
        if !matches!(result, Ok(0)) {
            let label = if result.is_ok() { "ok" } else { "failed" };
            metrics.jobs_run.with_label_values(&["codes", label]).inc();
        }
        tokio::select! {
            () = codes.wanted.notified() => {}
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}

/// Completes the unfinished batches; how many there were.
///
/// # Errors
/// When the store or the keys are not there.
pub async fn pass(codes: &Codes, store: &Store, engine: &Engine) -> anyhow::Result<usize> {
    let open = store.open_code_batches(BATCHES_PER_PASS).await?;
    if open.is_empty() {
        return Ok(0);
    }
    let keys = codes.keys(store).await?;
    for (tenant, id) in &open {
        // One batch that cannot be completed must not keep the others waiting.
        if let Err(error) = complete(store, engine, &keys, *tenant, *id).await {
            tracing::warn!(%tenant, batch = %id, error = format!("{error:#}"), "a batch of codes was not completed");
        }
    }
    Ok(open.len())
}

async fn complete(
    store: &Store,
    engine: &Engine,
    keys: &Arc<CodeKeys>,
    tenant: TenantId,
    id: CodeBatchId,
) -> anyhow::Result<()> {
    loop {
        let Some(batch) = store.find_code_batch(tenant, id).await? else { return Ok(()) };
        if batch.completed_at.is_some() || batch.status == CodeStatus::Revoked {
            return Ok(());
        }
        let writer = Writer::of(&batch, keys)?;
        let from_number = batch.next_number;
        let count = (batch.code_count - batch.added_count).clamp(1, PAGE);
        let keys = keys.clone();
        let digests = tokio::task::spawn_blocking(move || {
            let key = keys.get(batch.key_id)?;
            let mut digests = Vec::with_capacity(count as usize);
            let mut code = String::new();
            for number in from_number..from_number + count {
                code.clear();
                writer.write(number, &mut code);
                digests.push(key.digest(tenant, &text::normalise(&code)?));
            }
            Some(digests)
        });
        let digests = digests.await?.context("the batch's pattern makes texts that are no codes")?;
        let command = Command::AddCodes {
            batch_id: id,
            from_number,
            digests,
            max_uses: Vec::new(),
            holders: Vec::new(),
            last: false,
        };
        match engine.submit(envelope(tenant, command)).await? {
            Answer::Accepted { .. } => {}
            // Somebody else has gone on with it: see how far it is.
            Answer::Refused(Rejection::CodeBatchOutOfStep { .. }) => {}
            Answer::Refused(Rejection::CodeRevoked | Rejection::CodeBatchNotFound) => return Ok(()),
            Answer::Refused(rejection) => anyhow::bail!("refused: {}", rejection.code()),
        }
    }
}

/// A command of the server's own.
pub fn envelope(tenant: TenantId, command: Command) -> Envelope {
    let now = clock::now();
    Envelope { tenant, actor: None, command, idempotency: None, at: now, now, seed: clock::seed(now) }
}

/// Writes the codes of a batch from their numbers.
pub struct Writer {
    pattern: Pattern,
    permutation: Permutation,
}

impl Writer {
    /// # Errors
    /// When the batch's codes cannot be made any more, or not by this server.
    pub fn of(batch: &CodeBatch, keys: &CodeKeys) -> anyhow::Result<Writer> {
        ensure!(batch.kind == CodeKind::Unique, "only unique codes are made here");
        let nonce = batch.nonce.context("what the codes were made from has been destroyed")?;
        let key = keys.get(batch.key_id).with_context(|| format!("the key {} is missing", batch.key_id))?;
        let pattern = Pattern::new(&batch.pattern, &batch.alphabet, batch.check_character)
            .map_err(|bad| anyhow::anyhow!("the batch's pattern {bad}"))?;
        let permutation = Permutation::new(key.of_batch(&nonce), pattern.base(), pattern.length());
        Ok(Writer { pattern, permutation })
    }

    /// Appends the code of a number.
    pub fn write(&self, number: i64, out: &mut String) {
        self.pattern.write(&self.permutation.digits(number.unsigned_abs()), out);
    }
}

/// The digests of a code's text under every key, newest first; `None` for what cannot be a code.
pub fn digests(keys: &CodeKeys, tenant: TenantId, code: &str) -> Option<Vec<CodeDigest>> {
    let normal = text::normalise(code)?;
    let mut all: Vec<CodeDigest> = keys.iter().map(|key| key.digest(tenant, &normal)).collect();
    all.reverse();
    Some(all)
}
