//! `scrip distribute` and `scrip grant`: files of up to a million rows, straight on the store, with a progress bar. A server on the
//! same store may take the work over; either way it counts once, and goes on after a crash.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, ValueEnum};
use indicatif::{HumanCount, ProgressBar, ProgressStyle};
use scrip_domain::bulk::{Bulk, BulkKind, BulkStatus};
use scrip_domain::{Answer, BulkId, Command, Envelope, Outcome, TemplateId, TenantId};
use tokio::io::AsyncReadExt;

use super::StoreArgs;
use crate::bulk::{FileReader, Format, RowOutcome, Stager, cell, results_of};
use crate::jobs::runner::{Runner, RunnerOptions};
use crate::metrics::Metrics;
use crate::store::Store;
use crate::{clock, jobs};

/// Gives coupons of a template to every member of a file.
#[derive(Debug, Args)]
pub struct DistributeArgs {
    /// CSV with a header (member_id, member_level) or NDJSON ({"member_id":"m-1"}), at most 1,000,000 rows.
    file: PathBuf,
    #[arg(long, value_name = "TENANT_ID")]
    tenant: TenantId,
    #[arg(long, value_name = "TEMPLATE_ID")]
    template: TemplateId,
    #[command(flatten)]
    how: How,
    #[command(flatten)]
    store: StoreArgs,
}

/// Credits points to the members of a file.
#[derive(Debug, Args)]
pub struct GrantArgs {
    /// CSV with a header (member_id, points; type, reference, remark, expires_at) or NDJSON of the same fields, at most 1,000,000
    /// rows.
    file: PathBuf,
    #[arg(long, value_name = "TENANT_ID")]
    tenant: TenantId,
    #[command(flatten)]
    how: How,
    #[command(flatten)]
    store: StoreArgs,
}

#[derive(Debug, Args)]
struct How {
    /// Default: by the file's ending, .csv or .ndjson.
    #[arg(long, value_enum)]
    format: Option<FileFormat>,
    /// Only enqueue it; a server does the work.
    #[arg(long)]
    no_wait: bool,
    /// Write each row that was not accepted, with the reason, to this file as CSV.
    #[arg(long, value_name = "FILE", conflicts_with = "no_wait")]
    failures: Option<PathBuf>,
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum FileFormat {
    Csv,
    Ndjson,
}

impl DistributeArgs {
    pub async fn run(self) -> anyhow::Result<()> {
        run(self.file, self.tenant, Some(self.template), self.how, self.store).await
    }
}

impl GrantArgs {
    pub async fn run(self) -> anyhow::Result<()> {
        run(self.file, self.tenant, None, self.how, self.store).await
    }
}

async fn run(
    file: PathBuf,
    tenant: TenantId,
    template_id: Option<TemplateId>,
    how: How,
    store: StoreArgs,
) -> anyhow::Result<()> {
    let format = format_of(&file, how.format)?;
    let settings = store.settings()?;
    let (store, engine) = store.engine().await?;
    anyhow::ensure!(store.find_tenant(tenant).await?.is_some(), "there is no tenant {tenant}");
    if let Some(id) = template_id {
        anyhow::ensure!(store.find_template(tenant, id).await?.is_some(), "the tenant has no coupon template {id}");
    }
    let kind = if template_id.is_some() { BulkKind::Distribution } else { BulkKind::PointsGrants };
    let now = clock::now();
    let id = BulkId(scrip_domain::id::Ids::new(clock::seed(now)).draw());
    let staged = match stage(&store, tenant, id, kind, &file, format).await {
        Ok(staged) => staged,
        Err(error) => {
            store.drop_staged(tenant, id).await?;
            return Err(error.context(format!("{}", file.display())));
        }
    };
    let command = Command::CreateBulk { bulk_id: id, template_id, staged };
    let envelope = Envelope { tenant, actor: None, command, idempotency: None, at: now, now, seed: clock::seed(now) };
    let mut bulk = match engine.submit(envelope).await? {
        Answer::Accepted { outcome: Outcome::Bulk(bulk), .. } => *bulk,
        Answer::Accepted { .. } => anyhow::bail!("it was answered with something else"),
        Answer::Refused(rejection) => anyhow::bail!("refused: {}", rejection.code()),
    };
    if !how.no_wait {
        let options =
            RunnerOptions { concurrency: 1, long_concurrency: 1, recurring: false, ..settings.runner_options() };
        let handler = jobs::handler(settings.housekeeping_options());
        let runner = Runner::new(store.clone(), engine, Metrics::new(), options, handler);
        bulk = wait(&store, &runner, tenant, bulk).await?;
        if let Some(path) = &how.failures {
            write_failures(&store, tenant, &bulk, path).await?;
        }
    }
    if how.json {
        println!("{}", serde_json::to_string_pretty(&bulk)?);
        return Ok(());
    }
    println!(
        "{} {}: {} rows, {} accepted, {} refused, {} skipped",
        bulk.id,
        bulk.status.as_str(),
        HumanCount(bulk.rows as u64),
        HumanCount(bulk.accepted as u64),
        HumanCount(bulk.refused as u64),
        HumanCount(bulk.skipped as u64),
    );
    Ok(())
}

fn format_of(file: &std::path::Path, given: Option<FileFormat>) -> anyhow::Result<Format> {
    match (given, file.extension().and_then(|ending| ending.to_str())) {
        (Some(FileFormat::Csv), _) | (None, Some("csv")) => Ok(Format::Csv),
        (Some(FileFormat::Ndjson), _) | (None, Some("ndjson" | "jsonl")) => Ok(Format::Ndjson),
        _ => anyhow::bail!("{} ends neither in .csv nor in .ndjson; say which it is with --format", file.display()),
    }
}

async fn stage(
    store: &Store,
    tenant: TenantId,
    id: BulkId,
    kind: BulkKind,
    path: &std::path::Path,
    format: Format,
) -> anyhow::Result<scrip_domain::bulk::Staged> {
    let mut file = tokio::fs::File::open(path).await.context("it cannot be opened")?;
    let bar = ProgressBar::new(file.metadata().await?.len()).with_message("reading");
    bar.set_style(ProgressStyle::with_template("{wide_bar} {bytes}/{total_bytes} {elapsed}  {msg}")?);
    let mut reader = FileReader::new(Stager::new(store, tenant, id, kind), format);
    let mut buffer = vec![0; 1 << 16];
    loop {
        let count = file.read(&mut buffer).await.context("it cannot be read")?;
        if count == 0 {
            break;
        }
        reader.feed(&buffer[..count]).await?;
        bar.inc(count as u64);
    }
    bar.finish_and_clear();
    Ok(reader.finish().await?)
}

/// Does the work, or watches whoever does, until it is over.
async fn wait(store: &Store, runner: &Runner, tenant: TenantId, bulk: Bulk) -> anyhow::Result<Bulk> {
    let bar = ProgressBar::new(bulk.rows as u64);
    bar.set_style(ProgressStyle::with_template("{wide_bar} {human_pos}/{human_len} {per_sec} eta {eta}  {msg}")?);
    let (id, job_id) = (bulk.id, bulk.job_id());
    runner.start_leases();
    let mut last = bulk;
    while last.status == BulkStatus::Running {
        let mut run = std::pin::pin!(runner.run_job(tenant, job_id));
        let mut has_run = false;
        while !has_run {
            tokio::select! {
                ran = &mut run => {
                    ran?;
                    has_run = true;
                }
                () = tokio::time::sleep(Duration::from_millis(200)) => {}
            }
            last = store.find_bulk(tenant, id).await?.context("the bulk is gone")?;
            bar.set_position((last.accepted + last.refused + last.skipped) as u64);
        }
        let job = store.find_job(tenant, job_id).await?.context("its job is gone")?;
        if last.status == BulkStatus::Running && job.is_finished() {
            let error = job.last_error.unwrap_or_default();
            anyhow::bail!(
                "its job is {}: {error}; mend the cause, then: scrip jobs retry {job_id}",
                job.state.as_str()
            );
        }
        if last.status == BulkStatus::Running {
            // Somebody else has it, or it waits for its next attempt.
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
    bar.finish_and_clear();
    Ok(last)
}

async fn write_failures(store: &Store, tenant: TenantId, bulk: &Bulk, path: &PathBuf) -> anyhow::Result<()> {
    use std::io::Write;
    let mut file = std::io::BufWriter::new(std::fs::File::create(path)?);
    writeln!(file, "row,member_id,outcome,reason")?;
    let mut number = 0;
    while let Some(chunk) = store.chunks(tenant, bulk.id, number, None, 1).await?.pop() {
        number = chunk.number + 1;
        for result in results_of(&chunk)?.iter().filter(|result| result.outcome != RowOutcome::Accepted) {
            let reason = result.reason.as_deref().unwrap_or_default();
            writeln!(file, "{},{},{},{}", result.row, cell(&result.member_id), result.outcome.as_str(), cell(reason))?;
        }
    }
    Ok(file.flush()?)
}
