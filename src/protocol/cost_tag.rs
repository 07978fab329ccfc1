//! Writes what a request cost into its usage object. The rest of the text stays as it is, byte by byte.

use std::ops::Range;

use super::json_scan::{ScanLimits, ValueKind, scan_object};
use crate::billing::Nanodollars;

/// What a request cost, in US dollars; `None` if its model has no price.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CostTag(pub Option<Nanodollars>);

/// Replies are nested more deeply than requests may be, and have more members.
const LIMITS: ScanLimits = ScanLimits { max_depth: 256, max_number_bytes: 1024, max_members: 4096 };

impl CostTag {
    /// The cost as a JSON number, exact to the nano-dollar; `null` if it is unknown.
    fn literal(self) -> String {
        self.0.map_or_else(|| "null".to_owned(), |cost| cost.to_string())
    }

    /// `json` with the cost as member `cost` of the object at a path of member names; `None` if there is no such object.
    /// A cost that a provider has written there is replaced.
    pub fn write_into(self, json: &[u8], path: &[&str]) -> Option<Vec<u8>> {
        let mut object: Range<usize> = 0..json.len();
        for name in path {
            object = member(json, object, name, |kind| kind == ValueKind::Object)?;
        }
        let text = json.get(object.clone())?;
        let members = scan_object(text, LIMITS).ok()?;
        let (place, with) = match member(json, object.clone(), "cost", |_| true) {
            Some(place) => (place, self.literal()),
            None => {
                let at = object.start.checked_add(members.open)?;
                let comma = if members.is_empty() { "" } else { "," };
                (at..at, format!("\"cost\":{}{comma}", self.literal()))
            }
        };
        Some([json.get(..place.start)?, with.as_bytes(), json.get(place.end..)?].concat())
    }
}

/// Where a member's value stands, if it is of the right kind.
fn member(json: &[u8], object: Range<usize>, name: &str, fits: fn(ValueKind) -> bool) -> Option<Range<usize>> {
    let members = scan_object(json.get(object.clone())?, LIMITS).ok()?;
    let member = members.unique(name).ok()?.filter(|member| fits(member.kind))?;
    let from = object.start;
    Some(from.checked_add(member.value.start)?..from.checked_add(member.value.end)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tagged(json: &str, path: &[&str], cost: Option<u64>) -> Option<String> {
        CostTag(cost.map(Nanodollars)).write_into(json.as_bytes(), path).map(|text| String::from_utf8(text).unwrap())
    }

    #[test]
    fn the_cost_is_written_and_all_else_stays() {
        let told = |json, cost| tagged(json, &["usage"], cost);
        assert_eq!(
            told("{ \"a\": [1.50, {\"usage\": {}}],\n \"usage\" : { \"x\": 1 } }", Some(12_345)).as_deref(),
            Some("{ \"a\": [1.50, {\"usage\": {}}],\n \"usage\" : {\"cost\":0.000012345, \"x\": 1 } }")
        );
        assert_eq!(told("{\"usage\":{}}", Some(0)).as_deref(), Some("{\"usage\":{\"cost\":0}}"));
        assert_eq!(told("{\"usage\":{\"y\":2}}", None).as_deref(), Some("{\"usage\":{\"cost\":null,\"y\":2}}"));
        assert_eq!(
            told("{\"usage\":{\"cost\" : 0.5 ,\"y\":2}}", Some(u64::MAX)).as_deref(),
            Some("{\"usage\":{\"cost\" : 18446744073.709551615 ,\"y\":2}}")
        );
        let deep = tagged("{\"x_groq\":{\"usage\":{\"a\":1}}}", &["x_groq", "usage"], Some(1_000_000_000));
        assert_eq!(deep.as_deref(), Some("{\"x_groq\":{\"usage\":{\"cost\":1,\"a\":1}}}"));
    }

    #[test]
    fn where_there_is_no_usage_nothing_is_written() {
        for json in ["{}", "{\"usage\":null}", "{\"usage\":[]}", "[]", "{\"usage\":{}", "{\"usage\":{},\"usage\":{}}"] {
            assert_eq!(tagged(json, &["usage"], Some(1)), None, "{json}");
        }
    }
}
