//! What the operating system and the server tell about a run: the machine, its disk, CPU time, memory, batch sizes.
//!
//! Everything here is read from `/proc` and so is absent on other systems than Linux; a run is complete without it.

use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result};
use hdrhistogram::Histogram;
use serde::Serialize;

use super::Target;
use super::client::Api;
use super::report::{LatencyUs, new_histogram};

/// `sysconf(_SC_CLK_TCK)`, which Linux has fixed at 100 for what `/proc` shows.
const CLOCK_TICKS_PER_S: u64 = 100;
const FSYNC_SAMPLES: usize = 200;
const FSYNC_BLOCK_BYTES: usize = 4096;
/// The probe writes round and round over this many blocks, as a store's recycled log does.
const FSYNC_BLOCKS: usize = 64;

/// Where a run took place.
#[derive(Debug, Clone, Serialize)]
pub struct Environment {
    pub started_at: String,
    pub commit: Option<String>,
    pub version: &'static str,
    /// A debug build says nothing about speed, and the report shows it.
    pub debug_build: bool,
    pub cpu_model: Option<String>,
    pub cores: usize,
    pub memory_total_bytes: Option<u64>,
    pub kernel: Option<String>,
    /// Type and mount options of the file system that holds the data.
    pub filesystem: Option<String>,
    /// Writing 4 KiB and `fdatasync`, on the data's file system.
    pub fsync_us: Option<LatencyUs>,
    /// Other work on the machine before the run began.
    pub load_average_1m: Option<f64>,
}

impl Environment {
    /// Looks around; `data_dir` is the directory of the store, where the sync probe writes and removes a file.
    pub fn observe(data_dir: Option<&Path>) -> Result<Environment> {
        let fsync_us = match data_dir {
            Some(dir) => Some(LatencyUs::of(&fsync_probe(dir)?)),
            None => None,
        };
        Ok(Environment {
            started_at: jiff::Timestamp::now().to_string(),
            commit: commit(),
            version: env!("CARGO_PKG_VERSION"),
            debug_build: cfg!(debug_assertions),
            cpu_model: field(&read("/proc/cpuinfo"), "model name").map(str::to_owned),
            cores: std::thread::available_parallelism().map_or(1, |cores| cores.get()),
            memory_total_bytes: kibibytes(&read("/proc/meminfo"), "MemTotal"),
            kernel: Some(read("/proc/sys/kernel/osrelease").trim().to_owned()).filter(|kernel| !kernel.is_empty()),
            filesystem: data_dir.and_then(|dir| filesystem(&read("/proc/self/mounts"), &fs::canonicalize(dir).ok()?)),
            fsync_us,
            load_average_1m: read("/proc/loadavg").split(' ').next().and_then(|text| text.parse().ok()),
        })
    }
}

/// Sums of CPU time and bytes since the processes began; two samples give what happened between them.
#[derive(Debug, Clone, Copy, Default)]
pub struct Usage {
    pub server_cpu_us: Option<u64>,
    pub generator_cpu_us: Option<u64>,
    /// All processes and the kernel: includes a database server and whatever else runs.
    pub machine_cpu_us: Option<u64>,
    /// Time the hypervisor gave to others.
    pub steal_us: Option<u64>,
    pub server_written_bytes: Option<u64>,
}

impl Usage {
    pub fn sample(server_pid: Option<u32>) -> Usage {
        let machine = machine_cpu_us(&read("/proc/stat"));
        Usage {
            server_cpu_us: server_pid.and_then(|pid| process_cpu_us(&read(&format!("/proc/{pid}/stat")))),
            generator_cpu_us: process_cpu_us(&read("/proc/self/stat")),
            machine_cpu_us: machine.map(|(busy, _)| busy),
            steal_us: machine.map(|(_, steal)| steal),
            server_written_bytes: server_pid
                .and_then(|pid| field(&read(&format!("/proc/{pid}/io")), "write_bytes")?.parse().ok()),
        }
    }

    pub fn since(&self, earlier: &Usage) -> Usage {
        let difference = |now: Option<u64>, then: Option<u64>| Some(now?.saturating_sub(then?));
        Usage {
            server_cpu_us: difference(self.server_cpu_us, earlier.server_cpu_us),
            generator_cpu_us: difference(self.generator_cpu_us, earlier.generator_cpu_us),
            machine_cpu_us: difference(self.machine_cpu_us, earlier.machine_cpu_us),
            steal_us: difference(self.steal_us, earlier.steal_us),
            server_written_bytes: difference(self.server_written_bytes, earlier.server_written_bytes),
        }
    }
}

/// Resident memory of a process in bytes: now, and the most it ever was.
pub fn resident_bytes(pid: u32) -> (Option<u64>, Option<u64>) {
    let status = read(&format!("/proc/{pid}/status"));
    (kibibytes(&status, "VmRSS"), kibibytes(&status, "VmHWM"))
}

/// Sums of the server's lane histograms since it started.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct LaneMetrics {
    /// `scrip_lane_batch_size_count`, all lanes.
    pub batches: f64,
    /// `scrip_lane_batch_size_sum`: commands in those batches.
    pub commands: f64,
    /// `scrip_lane_commit_seconds_count`.
    pub commits: f64,
    /// `scrip_lane_commit_seconds_sum`.
    pub commit_s: f64,
    /// `scrip_lane_wait_seconds_count`.
    pub waits: f64,
    /// `scrip_lane_wait_seconds_sum`: what commands waited for their batches.
    pub wait_s: f64,
}

impl LaneMetrics {
    /// `None` when the server has no such metrics, as a baseline may not.
    pub async fn scrape(target: &Target) -> Result<Option<LaneMetrics>> {
        let answer = Api::connect(target).await?.get("/metrics").await?;
        if answer.status != 200 {
            return Ok(None);
        }
        Ok(LaneMetrics::parse(&String::from_utf8_lossy(&answer.body)))
    }

    fn parse(text: &str) -> Option<LaneMetrics> {
        let sum = |name: &str| {
            let mut values = text.lines().filter_map(|line| {
                let rest = line.strip_prefix(name)?;
                (rest.starts_with('{') || rest.starts_with(' '))
                    .then(|| rest.rsplit(' ').next()?.parse::<f64>().ok())?
            });
            let first = values.next()?;
            Some(values.fold(first, |sum, value| sum + value))
        };
        Some(LaneMetrics {
            batches: sum("scrip_lane_batch_size_count")?,
            commands: sum("scrip_lane_batch_size_sum")?,
            commits: sum("scrip_lane_commit_seconds_count").unwrap_or(0.0),
            commit_s: sum("scrip_lane_commit_seconds_sum").unwrap_or(0.0),
            waits: sum("scrip_lane_wait_seconds_count").unwrap_or(0.0),
            wait_s: sum("scrip_lane_wait_seconds_sum").unwrap_or(0.0),
        })
    }

    pub fn since(&self, earlier: &LaneMetrics) -> LaneMetrics {
        LaneMetrics {
            batches: self.batches - earlier.batches,
            commands: self.commands - earlier.commands,
            commits: self.commits - earlier.commits,
            commit_s: self.commit_s - earlier.commit_s,
            waits: self.waits - earlier.waits,
            wait_s: self.wait_s - earlier.wait_s,
        }
    }

    pub fn mean_batch(&self) -> Option<f64> {
        (self.batches > 0.0).then(|| self.commands / self.batches)
    }

    pub fn mean_commit_us(&self) -> Option<f64> {
        (self.commits > 0.0).then(|| self.commit_s * 1e6 / self.commits)
    }

    pub fn mean_wait_us(&self) -> Option<f64> {
        (self.waits > 0.0).then(|| self.wait_s * 1e6 / self.waits)
    }
}

/// How long writing 4 KiB and `fdatasync` take in a folder, in milliseconds: the median and the 95th percentile.
///
/// # Errors
/// When the folder cannot be written.
pub fn sync_latency_ms(dir: &Path) -> Result<(f64, f64)> {
    let latency_us = fsync_probe(dir)?;
    let at = |quantile| latency_us.value_at_quantile(quantile) as f64 / 1e3;
    Ok((at(0.5), at(0.95)))
}

fn fsync_probe(dir: &Path) -> Result<Histogram<u64>> {
    let path = dir.join(format!(".scrip-sync-probe-{}", std::process::id()));
    let measured = File::create_new(&path)
        .and_then(|mut file| {
            let block = [0x5a; FSYNC_BLOCK_BYTES];
            for _ in 0..FSYNC_BLOCKS {
                file.write_all(&block)?;
            }
            file.sync_all()?;
            let mut latency_us = new_histogram();
            for sample in 0..FSYNC_SAMPLES {
                if sample % FSYNC_BLOCKS == 0 {
                    file.seek(SeekFrom::Start(0))?;
                }
                let started = Instant::now();
                file.write_all(&block)?;
                file.sync_data()?;
                latency_us.saturating_record(started.elapsed().as_micros() as u64);
            }
            Ok(latency_us)
        })
        .with_context(|| format!("probing the disk with {}", path.display()));
    let removed = fs::remove_file(&path).with_context(|| format!("removing {}", path.display()));
    let latency_us = measured?;
    removed?;
    Ok(latency_us)
}

fn commit() -> Option<String> {
    if let Some(commit) = option_env!("SCRIP_COMMIT") {
        return Some(commit.to_owned());
    }
    let output = Command::new("git").args(["rev-parse", "HEAD"]).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// A file of `/proc`, empty where there is none: all of them are optional.
fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// The value of a line `name: value`.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim())
    })
}

fn kibibytes(text: &str, name: &str) -> Option<u64> {
    let number: u64 = field(text, name)?.strip_suffix("kB")?.trim().parse().ok()?;
    Some(number * 1024)
}

/// User and system time of `/proc/<pid>/stat`. The name may hold spaces and parentheses, so fields count from the last one.
fn process_cpu_us(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let user_ticks: u64 = fields.next()?.parse().ok()?;
    let system_ticks: u64 = fields.next()?.parse().ok()?;
    Some((user_ticks + system_ticks) * 1_000_000 / CLOCK_TICKS_PER_S)
}

/// Busy time (without steal) and steal of all cores, from the first line of `/proc/stat`.
fn machine_cpu_us(stat: &str) -> Option<(u64, u64)> {
    let line = stat.lines().next()?.strip_prefix("cpu ")?;
    let ticks: Vec<u64> = line.split_ascii_whitespace().map_while(|text| text.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal
    let [user, nice, system, _, _, irq, softirq, steal, ..] = ticks[..] else { return None };
    let us = |ticks| ticks * 1_000_000 / CLOCK_TICKS_PER_S;
    Some((us(user + nice + system + irq + softirq), us(steal)))
}

/// Type and options of the innermost mount that holds `dir`. Where several are mounted on one place, the last one shows.
fn filesystem(mounts: &str, dir: &Path) -> Option<String> {
    mounts
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ').skip(1);
            let (place, kind, options) = (fields.next()?, fields.next()?, fields.next()?);
            dir.starts_with(place).then(|| (place.len(), format!("{kind} ({options})")))
        })
        .max_by_key(|(length, _)| *length)
        .map(|(_, text)| text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn process_times_survive_odd_names() {
        let stat = "42 (a (b) c) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20 0 1 0";
        assert_eq!(process_cpu_us(stat), Some(2_000_000));
        assert_eq!(process_cpu_us(""), None);
    }

    #[test]
    fn machine_times() {
        assert_eq!(machine_cpu_us("cpu  100 1 50 9999 7 2 3 4 0 0\ncpu0 1 1 1 1"), Some((156 * 10_000, 4 * 10_000)));
        assert_eq!(machine_cpu_us(""), None);
    }

    #[test]
    fn the_innermost_mount_counts() {
        let mounts = "/dev/a / ext4 rw,relatime 0 0\ntmpfs /data tmpfs rw 0 0\n/dev/b /database xfs rw,noatime 0 0\n";
        assert_eq!(filesystem(mounts, Path::new("/data/x")).as_deref(), Some("tmpfs (rw)"));
        assert_eq!(filesystem(mounts, Path::new("/database/x")).as_deref(), Some("xfs (rw,noatime)"));
        assert_eq!(filesystem(mounts, Path::new("/dat")).as_deref(), Some("ext4 (rw,relatime)"));
    }

    #[test]
    fn lane_metrics_add_up_over_lanes() {
        let text = "# TYPE scrip_lane_batch_size histogram\n\
            scrip_lane_batch_size_bucket{kind=\"claim\",lane=\"0\",le=\"1\"} 7\n\
            scrip_lane_batch_size_sum{kind=\"claim\",lane=\"0\"} 30\n\
            scrip_lane_batch_size_count{kind=\"claim\",lane=\"0\"} 10\n\
            scrip_lane_batch_size_sum{kind=\"points\",lane=\"1\"} 10\n\
            scrip_lane_batch_size_count{kind=\"points\",lane=\"1\"} 10\n\
            scrip_lane_commit_seconds_sum 0.004\n\
            scrip_lane_commit_seconds_count 20\n";
        let lanes = LaneMetrics::parse(text).unwrap();
        assert_eq!(lanes.mean_batch(), Some(2.0));
        assert_eq!((lanes.mean_commit_us(), lanes.mean_wait_us()), (Some(200.0), None));
        assert_eq!(LaneMetrics::parse("other 1\n"), None);
        assert_eq!(lanes.since(&lanes).mean_batch(), None);
    }

    #[test]
    fn the_environment_is_observed() {
        let dir = std::env::temp_dir();
        let environment = Environment::observe(Some(&dir)).unwrap();
        assert_eq!(environment.fsync_us.unwrap().count, FSYNC_SAMPLES as u64);
        assert!(environment.cores > 0);
    }
}
