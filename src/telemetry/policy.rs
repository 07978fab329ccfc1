//! Which requests are logged, and what of their callers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Outcome, RequestRecord};
use crate::config::{ClientIp, Logging, Overrides, RecordsMode};

/// Which requests are logged and kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogPolicy {
    log_successes: bool,
    sample_percent: u64,
    slow_ms: u64,
    /// What the key says in place of `records.mode`.
    pub records: Option<RecordsMode>,
}

impl Default for LogPolicy {
    fn default() -> Self {
        Self::from(&Logging::default())
    }
}

impl From<&Logging> for LogPolicy {
    fn from(logging: &Logging) -> Self {
        let Logging { log_successes, sample_percent, slow_ms, .. } = *logging;
        Self { log_successes, sample_percent, slow_ms, records: None }
    }
}

impl LogPolicy {
    /// Takes up what a key says differently.
    pub fn apply(&mut self, overrides: &Overrides) {
        self.log_successes = overrides.log_successes.unwrap_or(self.log_successes);
        self.records = overrides.records.or(self.records);
    }
}

/// How much attention a log line asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// None.
    Info,
    /// Something failed on the gateway's or a provider's side, or was slow.
    Warning,
}

impl RequestRecord {
    /// How it is logged; `None` if not at all.
    pub fn severity(&self) -> Option<Severity> {
        let policy = self.policy;
        let failed = self.status >= 500 || (self.status < 400 && self.outcome == Outcome::Failed);
        if failed || (policy.slow_ms > 0 && self.total_ms > policy.slow_ms) {
            return Some(Severity::Warning);
        }
        let went_well = self.status < 400 && self.outcome == Outcome::Completed;
        let wanted = !went_well || (policy.log_successes && is_sampled(&self.settlement_id, policy.sample_percent));
        wanted.then_some(Severity::Info)
    }
}

/// Whether a request belongs to a sample of so many per cent. The same id is always judged the same; it is the gateway's
/// own, because callers could choose theirs.
pub fn is_sampled(settlement_id: &str, percent: u64) -> bool {
    // FNV-1a, its high bits: ids that differ in their last digits alone must fall apart.
    let hash = settlement_id
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    let mixed = (hash ^ (hash >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
    mixed.checked_rem(100).unwrap_or(0) < percent
}

/// A caller's address as far as it may be kept.
pub fn logged_address(address: IpAddr, keep: ClientIp) -> String {
    match (keep, address.to_canonical()) {
        (ClientIp::None, _) => String::new(),
        (ClientIp::Full, address) => address.to_string(),
        (ClientIp::Truncated, IpAddr::V4(address)) => {
            let [a, b, c, _] = address.octets();
            format!("{}/24", Ipv4Addr::new(a, b, c, 0))
        }
        (ClientIp::Truncated, IpAddr::V6(address)) => {
            let [a, b, c, ..] = address.segments();
            format!("{}/48", Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(status: u16, policy: LogPolicy) -> RequestRecord {
        RequestRecord { status, policy, total_ms: 100, request_id: "r".into(), ..RequestRecord::default() }
    }

    fn policy(log_successes: bool, sample_percent: u64, slow_ms: u64) -> LogPolicy {
        LogPolicy { log_successes, sample_percent, slow_ms, records: None }
    }

    #[test]
    fn failures_are_always_logged_and_successes_as_configured() {
        let quiet = policy(false, 100, 0);
        assert_eq!(record(200, LogPolicy::default()).severity(), Some(Severity::Info));
        assert_eq!(record(200, quiet).severity(), None);
        assert_eq!(record(404, quiet).severity(), Some(Severity::Info));
        assert_eq!(record(502, quiet).severity(), Some(Severity::Warning));
        assert_eq!(record(200, policy(true, 0, 0)).severity(), None);
        assert_eq!(record(200, policy(false, 0, 99)).severity(), Some(Severity::Warning));
        assert_eq!(record(200, policy(true, 100, 100)).severity(), Some(Severity::Info));
        let broken = RequestRecord { outcome: Outcome::Failed, ..record(200, quiet) };
        assert_eq!(broken.severity(), Some(Severity::Warning));
        let mut own = quiet;
        own.apply(&Overrides { log_successes: Some(true), ..Overrides::default() });
        assert_eq!(record(200, own).severity(), Some(Severity::Info));
    }

    #[test]
    fn a_sample_is_about_as_large_as_it_should_be() {
        let sampled = |percent| (0..10_000).filter(|n| is_sampled(&format!("0199-{n:04}"), percent)).count();
        assert_eq!((sampled(0), sampled(100)), (0, 10_000));
        assert!((800..1200).contains(&sampled(10)), "{}", sampled(10));
    }

    #[test]
    fn an_address_is_kept_as_far_as_it_may_be() {
        let kept = |address: &str, keep| logged_address(address.parse().unwrap(), keep);
        assert_eq!(kept("192.0.2.77", ClientIp::None), "");
        assert_eq!(kept("192.0.2.77", ClientIp::Truncated), "192.0.2.0/24");
        assert_eq!(kept("::ffff:192.0.2.77", ClientIp::Truncated), "192.0.2.0/24");
        assert_eq!(kept("2001:db8:1:2:3::4", ClientIp::Truncated), "2001:db8:1::/48");
        assert_eq!(kept("2001:db8:1:2:3::4", ClientIp::Full), "2001:db8:1:2:3::4");
    }
}
