//! When a run counts. A run that fails a gate is reported with the reason, and never as a figure.

use serde::Serialize;

use super::report::{Measurement, mean_and_cv};

/// Limits a run must keep to.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Gates {
    /// Open loop: the least share of the arrivals that must have been answered.
    pub min_achieved_ratio: f64,
    /// Open loop: the 99th percentile of how late the generator itself may be. With the server on the same cores it is
    /// late when they are full, and then the figures are those of the generator.
    pub max_lag_p99_us: u64,
    /// Rates of the repetitions that vary more are flagged.
    pub max_rate_cv: f64,
    /// 99th percentiles of the repetitions that vary more are flagged.
    pub max_p99_cv: f64,
    /// A greater share of the cores taken by neither server nor generator is flagged.
    pub max_others_cpu_ratio: f64,
}

impl Default for Gates {
    fn default() -> Gates {
        Gates {
            min_achieved_ratio: 0.995,
            max_lag_p99_us: 1_000,
            max_rate_cv: 0.10,
            max_p99_cv: 0.15,
            max_others_cpu_ratio: 0.10,
        }
    }
}

impl Gates {
    /// Why the answers of a measurement cannot be trusted, at any speed.
    pub fn wrong(&self, measurement: &Measurement) -> Vec<String> {
        let mut reasons = Vec::new();
        if measurement.unexpected > 0 {
            let first = measurement.first_unexpected.as_deref().unwrap_or_default();
            reasons.push(format!("{} unexpected answers, the first: {first}", measurement.unexpected));
        }
        if measurement.transport_errors > 0 {
            let first = measurement.first_transport_error.as_deref().unwrap_or_default();
            reasons.push(format!("{} broken connections, the first: {first}", measurement.transport_errors));
        }
        if measurement.operations == 0 {
            reasons.push("not one success".to_owned());
        }
        for check in measurement.durability.iter().filter(|check| !check.holds()) {
            reasons.push(format!(
                "{}: {} acknowledged, {} durable, {} differ",
                check.what, check.acknowledged, check.durable, check.differing
            ));
        }
        reasons
    }

    /// Why the load was not the one that was asked for. A smoke run, whose figures mean nothing, may pass with these.
    pub fn unmet_load(&self, measurement: &Measurement) -> Vec<String> {
        let mut reasons = Vec::new();
        if let Some(offered) = measurement.offered {
            let ratio = measurement.answered as f64 / (offered as f64).max(1.0);
            if ratio < self.min_achieved_ratio {
                reasons.push(format!(
                    "{:.2} % of the offered requests were answered, {:.2} % are needed",
                    ratio * 100.0,
                    self.min_achieved_ratio * 100.0
                ));
            }
        }
        if let Some(lag_us) = measurement.schedule_lag_us
            && lag_us.p99 > self.max_lag_p99_us
        {
            reasons
                .push(format!("the generator was late: P99 {} us, {} us are allowed", lag_us.p99, self.max_lag_p99_us));
        }
        reasons
    }

    /// What a reader should know: repetitions that differ from each other, and cores shared with others.
    pub fn flags(&self, repetitions: &[Measurement]) -> Vec<String> {
        let mut flags = Vec::new();
        let rates: Vec<f64> = repetitions.iter().map(|repetition| repetition.achieved_per_s).collect();
        let p99s: Vec<f64> = repetitions.iter().map(|repetition| repetition.latency_us.p99 as f64).collect();
        for (what, values, most) in [("rate", rates, self.max_rate_cv), ("P99", p99s, self.max_p99_cv)] {
            let (_, cv) = mean_and_cv(&values);
            if cv > most {
                flags.push(format!("{what} varies by {:.0} % between repetitions", cv * 100.0));
            }
        }
        for run in repetitions {
            if let Some(ratio) = run.others_cpu_ratio.filter(|ratio| *ratio > self.max_others_cpu_ratio) {
                flags.push(format!(
                    "round {}: other processes, the store's server among them, took {:.0} % of the cores",
                    run.round,
                    ratio * 100.0
                ));
            }
        }
        flags
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::report::tests::measurement;
    use crate::bench::scenario::DurabilityCheck;

    #[test]
    fn a_good_run_passes() {
        let gates = Gates::default();
        let good = measurement(1_000.0, 900);
        assert_eq!(gates.wrong(&good), Vec::<String>::new());
        assert_eq!(gates.unmet_load(&good), Vec::<String>::new());
        assert_eq!(gates.flags(&[good.clone(), good]), Vec::<String>::new());
    }

    #[test]
    fn each_fault_is_named() {
        let gates = Gates::default();
        let good = measurement(1_000.0, 900);
        let wrong = |change: fn(&mut Measurement)| {
            let mut bad = good.clone();
            change(&mut bad);
            [gates.wrong(&bad), gates.unmet_load(&bad)].concat().join("; ")
        };
        assert!(wrong(|run| run.unexpected = 1).starts_with("1 unexpected answers"));
        assert!(wrong(|run| run.transport_errors = 2).starts_with("2 broken connections"));
        assert_eq!(wrong(|run| run.operations = 0), "not one success");
        assert!(wrong(|run| run.answered = 9_949).starts_with("99.49 %"));
        assert_eq!(wrong(|run| run.answered = 9_950), "");
        assert!(wrong(|run| run.schedule_lag_us = Some(run.latency_us)).is_empty());
        assert!(
            wrong(|run| {
                run.schedule_lag_us = Some(run.latency_us);
                run.schedule_lag_us.as_mut().unwrap().p99 = 1_001;
            })
            .starts_with("the generator was late")
        );
        let lost = |run: &mut Measurement| {
            run.durability = vec![DurabilityCheck { what: "claims", acknowledged: 10, durable: 9, differing: 1 }];
        };
        assert_eq!(wrong(lost), "claims: 10 acknowledged, 9 durable, 1 differ");
    }

    #[test]
    fn uneven_repetitions_are_flagged() {
        let flags = Gates::default().flags(&[measurement(1_000.0, 900), measurement(1_500.0, 2_000)]);
        assert_eq!(flags.len(), 2, "{flags:?}");
        let shared = Measurement { others_cpu_ratio: Some(0.4), ..measurement(1_000.0, 900) };
        assert!(Gates::default().flags(&[shared])[0].ends_with("took 40 % of the cores"));
    }
}
