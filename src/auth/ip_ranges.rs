//! Ranges of addresses in CIDR notation (RFC 4632, RFC 4291), for keys and the admin API.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A range such as `192.0.2.0/24` or `2001:db8::/32`; a single address is a range of one.
///
/// IPv4 addresses that are written as IPv6 (`::ffff:192.0.2.1`) are the IPv4 addresses they stand for, in ranges and in
/// callers alike, so that no spelling evades a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct IpRange {
    network: IpAddr,
    prefix: u8,
}

/// Why a text is not a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IpRangeError {
    /// Not an address, or not followed by a number of bits.
    #[error("must be an address or a range such as 192.0.2.0/24 or 2001:db8::/32")]
    Malformed,
    /// More bits than an address has.
    #[error("has more bits than an address of its kind: at most 32 for IPv4, 128 for IPv6")]
    TooManyBits,
    /// Bits of a host behind the network's.
    #[error("has bits set behind the network's: write the first address of the range")]
    HostBits,
}

impl IpRange {
    /// Whether an address lies in the range.
    pub fn contains(&self, address: IpAddr) -> bool {
        masked(address.to_canonical(), self.prefix) == Some(self.network)
            && address.to_canonical().is_ipv4() == self.network.is_ipv4()
    }
}

impl FromStr for IpRange {
    type Err = IpRangeError;

    fn from_str(text: &str) -> Result<Self, IpRangeError> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| IpRangeError::Malformed)?;
        let written_bits = match bits {
            None => None,
            // `parse` alone would take `+8` and `08`.
            Some(bits) if bits.bytes().all(|byte| byte.is_ascii_digit()) && (bits == "0" || !bits.starts_with('0')) => {
                Some(
                    bits.parse::<u8>().map_err(|_| {
                        if bits.is_empty() { IpRangeError::Malformed } else { IpRangeError::TooManyBits }
                    })?,
                )
            }
            Some(_) => return Err(IpRangeError::Malformed),
        };
        let network = address.to_canonical();
        let mapped = address.is_ipv6() && network.is_ipv4();
        let prefix = match written_bits {
            None if network.is_ipv4() => 32,
            None => 128,
            // `::ffff:0:0/96` and longer is IPv4 in IPv6's clothes; anything shorter reaches beyond IPv4.
            Some(bits) if mapped && bits <= 128 => bits.checked_sub(96).ok_or(IpRangeError::HostBits)?,
            Some(bits) => bits,
        };
        match masked(network, prefix) {
            None => Err(IpRangeError::TooManyBits),
            Some(first) if first == network => Ok(Self { network, prefix }),
            Some(_) => Err(IpRangeError::HostBits),
        }
    }
}

impl TryFrom<String> for IpRange {
    type Error = IpRangeError;

    fn try_from(text: String) -> Result<Self, IpRangeError> {
        text.parse()
    }
}

impl From<IpRange> for String {
    fn from(range: IpRange) -> Self {
        range.to_string()
    }
}

impl fmt::Display for IpRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

/// Whether an address may pass: there are no ranges, or it is known and lies in one of them.
pub fn admits(ranges: &[IpRange], address: Option<IpAddr>) -> bool {
    ranges.is_empty() || address.is_some_and(|address| ranges.iter().any(|range| range.contains(address)))
}

/// Reads an address as a header names it.
pub fn parse_address(text: &str) -> Option<IpAddr> {
    text.trim().parse::<IpAddr>().ok().map(|address| address.to_canonical())
}

/// What counts as one guesser: an IPv4 address, or the /64 of an IPv6 address, of which one subscriber has all.
pub fn guesser(address: IpAddr) -> String {
    match address.to_canonical() {
        address @ IpAddr::V4(_) => address.to_string(),
        address @ IpAddr::V6(_) => masked(address, 64).map_or_else(String::new, |network| format!("{network}/64")),
    }
}

/// The first address of the network; `None` if there are not so many bits.
fn masked(address: IpAddr, prefix: u8) -> Option<IpAddr> {
    let prefix = u32::from(prefix);
    Some(match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32u32.checked_sub(prefix)?).unwrap_or(0);
            Ipv4Addr::from_bits(address.to_bits() & mask).into()
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128u32.checked_sub(prefix)?).unwrap_or(0);
            Ipv6Addr::from_bits(address.to_bits() & mask).into()
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn range(text: &str) -> IpRange {
        text.parse().unwrap()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn addresses_lie_in_their_ranges_and_in_no_others() {
        for (of, inside, outside) in [
            ("192.0.2.0/24", "192.0.2.255", "192.0.3.0"),
            ("192.0.2.7", "192.0.2.7", "192.0.2.8"),
            ("10.0.0.0/8", "10.255.255.255", "11.0.0.0"),
            ("128.0.0.0/1", "255.255.255.255", "127.255.255.255"),
            ("2001:db8::/32", "2001:db8:ffff::1", "2001:db9::"),
            ("::1", "::1", "::2"),
            ("::ffff:192.0.2.0/120", "192.0.2.9", "192.0.3.9"),
        ] {
            assert!(range(of).contains(ip(inside)), "{inside} in {of}");
            assert!(!range(of).contains(ip(outside)), "{outside} not in {of}");
        }
    }

    #[test]
    fn the_two_kinds_of_address_do_not_mix_except_where_they_are_the_same() {
        assert!(range("0.0.0.0/0").contains(ip("::ffff:198.51.100.1")));
        assert!(!range("0.0.0.0/0").contains(ip("2001:db8::1")));
        assert!(!range("::/0").contains(ip("198.51.100.1")));
        assert!(!range("::/0").contains(ip("::ffff:198.51.100.1")));
        assert!(range("192.0.2.0/24").contains(ip("::ffff:192.0.2.1")));
    }

    #[test]
    fn what_is_no_range_is_refused_with_the_reason() {
        for text in [
            "",
            "/",
            "x",
            "1.2.3",
            "1.2.3.4/",
            "1.2.3.4/x",
            "1.2.3.4/+8",
            "1.2.3.4/08",
            "01.2.3.4",
            " 1.2.3.4",
            "1.2.3.4/8/8",
            "[::1]",
            "fe80::1%eth0",
        ] {
            assert_eq!(text.parse::<IpRange>(), Err(IpRangeError::Malformed), "{text:?}");
        }
        for text in ["1.2.3.4/33", "::/129", "::/999", "::ffff:1.2.3.4/129", "1.2.3.4/256"] {
            assert_eq!(text.parse::<IpRange>(), Err(IpRangeError::TooManyBits), "{text:?}");
        }
        for text in ["10.0.0.1/8", "2001:db8::1/32", "::ffff:0.0.0.0/95"] {
            assert_eq!(text.parse::<IpRange>(), Err(IpRangeError::HostBits), "{text:?}");
        }
    }

    #[test]
    fn an_unknown_address_passes_only_where_all_do() {
        assert!(admits(&[], None));
        assert!(!admits(&[range("0.0.0.0/0"), range("::/0")], None));
        assert!(admits(&[range("::1"), range("192.0.2.0/24")], Some(ip("192.0.2.1"))));
        assert_eq!(parse_address(" ::ffff:192.0.2.1 "), Some(ip("192.0.2.1")));
        assert_eq!(parse_address("192.0.2.1, 10.0.0.1"), None);
    }

    #[test]
    fn a_subscribers_whole_network_counts_as_one_guesser() {
        assert_eq!(guesser(ip("192.0.2.1")), "192.0.2.1");
        assert_eq!(guesser(ip("::ffff:192.0.2.1")), "192.0.2.1");
        assert_eq!(guesser(ip("2001:db8:1:2:aaaa::1")), guesser(ip("2001:db8:1:2:bbbb::2")));
        assert_ne!(guesser(ip("2001:db8:1:2::1")), guesser(ip("2001:db8:1:3::1")));
    }

    proptest! {
        #[test]
        fn ranges_are_read_as_they_are_written_and_hold_their_first_address(bits in any::<u128>(), v4 in any::<bool>(), prefix in 0u8..=128) {
            let address: IpAddr = if v4 { Ipv4Addr::from_bits(bits as u32).into() } else { Ipv6Addr::from_bits(bits).into() };
            let prefix = if v4 { prefix % 33 } else { prefix };
            prop_assume!(v4 || address.to_canonical().is_ipv6());
            let network = masked(address, prefix).unwrap();
            prop_assume!(v4 || network.to_canonical().is_ipv6());
            let range: IpRange = format!("{network}/{prefix}").parse().unwrap();
            prop_assert_eq!(range.to_string().parse::<IpRange>().unwrap(), range);
            prop_assert!(range.contains(network) && range.contains(address));
            if prefix > 0 {
                let flip = 1u128 << (if v4 { 32u8 } else { 128 }).abs_diff(prefix);
                let other: IpAddr = if v4 { Ipv4Addr::from_bits((bits ^ flip) as u32).into() } else { Ipv6Addr::from_bits(bits ^ flip).into() };
                prop_assert!(!range.contains(other));
            }
        }

        #[test]
        fn no_text_makes_parsing_fail_hard(text in "[0-9a-f:./%]{0,50}") {
            let _ = text.parse::<IpRange>();
        }
    }
}
