//! The metrics that every daemon has: which build it is, since when it runs, what it uses.
//!
//! The process figures carry the names that Prometheus dashboards know (`process_…`). They are read from `/proc/self`
//! at each scrape: three small reads, no thread.

use std::time::{SystemTime, UNIX_EPOCH};

use nix::sys::resource::{UsageWho, getrusage};
use nix::unistd::{SysconfVar, sysconf};
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Counter, Gauge, IntGauge, IntGaugeVec, Opts, Registry};

/// Registers `<prefix>_build_info{version}` and the process metrics.
///
/// # Errors
/// What the registry says: names taken, or a prefix that is no metric name.
pub fn register(registry: &Registry, prefix: &str, version: &str) -> Result<(), prometheus::Error> {
    let build = IntGaugeVec::new(
        Opts::new(
            format!("{prefix}_build_info"),
            "The running build, always 1; compare the label over a fleet to find stragglers after an upgrade",
        ),
        &["version"],
    )?;
    build.with_label_values(&[version]).set(1);
    registry.register(Box::new(build))?;
    registry.register(Box::new(Process::new()?))
}

/// Registers `tacit_process_hardening{measure}`: 1 where it holds.
///
/// # Errors
/// What the registry says.
pub fn hardening(
    registry: &Registry,
    measures: impl IntoIterator<Item = (&'static str, bool)>,
) -> Result<(), prometheus::Error> {
    let gauge = IntGaugeVec::new(
        Opts::new(
            "tacit_process_hardening",
            "1 where the measure holds for this process; 0: unsupported by the kernel, refused, or off, see the log of the start",
        ),
        &["measure"],
    )?;
    for (measure, holds) in measures {
        gauge.with_label_values(&[measure]).set(holds.into());
    }
    registry.register(Box::new(gauge))
}

/// The figures of this process.
struct Process {
    cpu: Counter,
    fds: IntGauge,
    rss: IntGauge,
    start: Gauge,
    page_bytes: i64,
}

impl Process {
    fn new() -> Result<Self, prometheus::Error> {
        let start = Gauge::new(
            "process_start_time_seconds",
            "When this process started, Unix time",
        )?;
        // Our own start-up takes milliseconds; the kernel's figure would need /proc/stat, which ProcSubset=pid hides.
        start.set(
            SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0.0, |d| d.as_secs_f64()),
        );
        Ok(Self {
            cpu: Counter::new("process_cpu_seconds_total", "User and system CPU time used")?,
            fds: IntGauge::new(
                "process_open_fds",
                "Open file descriptors; near the limit new connections fail",
            )?,
            rss: IntGauge::new("process_resident_memory_bytes", "Resident memory")?,
            start,
            page_bytes: sysconf(SysconfVar::PAGE_SIZE)
                .ok()
                .flatten()
                .unwrap_or(4096),
        })
    }

    /// Reads what can be read; a figure that cannot be read keeps its last value rather than becoming a lie of 0.
    fn read(&self) {
        if let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) {
            let seconds = |t: nix::sys::time::TimeVal| t.tv_sec() as f64 + t.tv_usec() as f64 / 1e6;
            let now = seconds(usage.user_time()) + seconds(usage.system_time());
            // A counter only rises; two scrapes at once may read in either order.
            self.cpu.inc_by((now - self.cpu.get()).max(0.0));
        }
        if let Ok(entries) = std::fs::read_dir("/proc/self/fd") {
            // Minus the one that reads the directory.
            let open = entries.count().saturating_sub(1);
            self.fds.set(i64::try_from(open).unwrap_or(i64::MAX));
        }
        let pages = std::fs::read_to_string("/proc/self/statm")
            .ok()
            .and_then(|statm| statm.split(' ').nth(1)?.parse::<i64>().ok());
        if let Some(pages) = pages {
            self.rss.set(pages.saturating_mul(self.page_bytes));
        }
    }
}

impl Collector for Process {
    fn desc(&self) -> Vec<&Desc> {
        [
            self.cpu.desc(),
            self.fds.desc(),
            self.rss.desc(),
            self.start.desc(),
        ]
        .concat()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.read();
        [
            self.cpu.collect(),
            self.fds.collect(),
            self.rss.collect(),
            self.start.collect(),
        ]
        .concat()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use prometheus::TextEncoder;

    fn value(text: &str, name: &str) -> f64 {
        let line = text
            .lines()
            .find(|l| l.starts_with(&format!("{name} ")))
            .unwrap();
        line.split(' ').nth(1).unwrap().parse().unwrap()
    }

    #[test]
    fn process_figures_follow_the_process() {
        let registry = Registry::new();
        register(&registry, "tacit_test", "1.2.3").unwrap();
        let scrape = || {
            TextEncoder::new()
                .encode_to_string(&registry.gather())
                .unwrap()
        };
        let before = scrape();
        assert!(before.contains("tacit_test_build_info{version=\"1.2.3\"} 1\n"));
        assert!(value(&before, "process_resident_memory_bytes") > 100_000.0);
        assert!(value(&before, "process_start_time_seconds") > 1.7e9);

        let held: Vec<_> = (0..20)
            .map(|_| std::fs::File::open("/proc/self/statm").unwrap())
            .collect();
        let with = value(&scrape(), "process_open_fds");
        assert!(
            with >= value(&before, "process_open_fds") + 20.0 - 5.0,
            "{with}"
        );
        drop(held);
    }

    #[test]
    fn a_second_registration_is_refused() {
        let registry = Registry::new();
        register(&registry, "tacit_test", "1").unwrap();
        assert!(register(&registry, "tacit_test", "1").is_err());
    }
}
