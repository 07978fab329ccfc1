//! Reports of usage: the time they cover, their sums, and the same as comma-separated values.
//!
//! All numbers are integers and exact: a sum that JSON's readers could not keep exact is refused, not rounded.

use super::cursor::MAX_NUMBER;
use super::types::records::{UsageGroup, UsageQuery, UsageRow};
use crate::billing::Day;
use crate::error::{Kind, Problem};

const DAY: u64 = 86_400;

/// The minutes that a report covers (Unix minutes), the end not included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// The first one.
    pub from: u64,
    /// The one behind the last.
    pub to: u64,
}

impl Span {
    /// What a query asks for, rounded to whole minutes: usage is kept by the minute. `now` is in Unix seconds.
    ///
    /// # Errors
    /// 400 for a span that ends before it begins, or has more than `max_days` days.
    pub fn of(query: &UsageQuery, now: u64, max_days: u64) -> Result<Self, Problem> {
        let to = query.to.unwrap_or(now);
        let from = query.from.unwrap_or(to.saturating_sub(DAY));
        if from >= to {
            let field = if query.to.is_some() { "to" } else { "from" };
            return Err(Problem::invalid(field, "The span must begin before it ends; by default it ends now."));
        }
        if to.saturating_sub(from) > max_days.saturating_mul(DAY) {
            let message = format!("At most {max_days} days can be asked for at a time (`admin.usage_max_days`).");
            return Err(Problem::invalid("from", message));
        }
        Ok(Self { from: from / 60, to: to.div_ceil(60) })
    }
}

/// The numbers of a row, by their names.
fn numbers(row: &UsageRow) -> impl Iterator<Item = (&'static str, u64)> {
    let requests =
        [("requests", row.requests), ("errors", row.errors), ("unpriced", row.unpriced), ("estimated", row.estimated)];
    requests.into_iter().chain(row.usage.counts()).chain([("cost_nanos", row.cost_nanos)])
}

/// The sum of all rows.
///
/// # Errors
/// 400 if a number, or the sum, is beyond what can be told exactly.
pub fn total(rows: &[UsageRow]) -> Result<UsageRow, Problem> {
    let total = rows.iter().fold(UsageRow::default(), |total, row| UsageRow {
        group: String::new(),
        requests: total.requests.saturating_add(row.requests),
        errors: total.errors.saturating_add(row.errors),
        unpriced: total.unpriced.saturating_add(row.unpriced),
        estimated: total.estimated.saturating_add(row.estimated),
        usage: total.usage.plus(&row.usage, u64::MAX),
        cost_nanos: total.cost_nanos.saturating_add(row.cost_nanos),
    });
    let too_large = numbers(&total).find(|(_, number)| *number > MAX_NUMBER);
    match too_large {
        None => Ok(total),
        Some((name, _)) => Err(inexact(name)),
    }
}

/// 400: a sum is too large to be told exactly.
pub fn inexact(name: &str) -> Problem {
    let message = format!("The sum of `{name}` is above 2^53 and could not be told exactly. Ask for a shorter span.");
    Problem { code: "sum_too_large".to_owned(), ..Problem::invalid("from", message) }
}

/// 400: an export would leave rows out.
pub fn too_many_rows(max: u64) -> Problem {
    let message = format!(
        "There are more than {max} rows (`admin.csv_max_rows`). Ask for a shorter span, or sum up by something else."
    );
    Problem::new(Kind::InvalidRequest, "too_many_rows", message)
}

/// Rows as comma-separated values (RFC 4180) with a header. Times are RFC 3339, the cost is there in nano-dollars and in
/// dollars.
pub fn csv(group: UsageGroup, rows: &[UsageRow]) -> String {
    let mut text = column(group).to_owned();
    for (name, _) in numbers(&UsageRow::default()) {
        text.push(',');
        text.push_str(name);
    }
    text.push_str(",cost_dollars\r\n");
    for row in rows {
        match (group, row.group.parse()) {
            (UsageGroup::Hour | UsageGroup::Day, Ok(seconds)) => text.push_str(&date_time(seconds)),
            _ => text.push_str(&cell(&row.group)),
        }
        for (_, number) in numbers(row) {
            text.push(',');
            text.push_str(&number.to_string());
        }
        text.push(',');
        text.push_str(&dollars(row.cost_nanos));
        text.push_str("\r\n");
    }
    text
}

fn column(group: UsageGroup) -> &'static str {
    match group {
        UsageGroup::None => "group",
        UsageGroup::Hour => "hour",
        UsageGroup::Day => "day",
        UsageGroup::Key => "key_id",
        UsageGroup::User => "user_id",
        UsageGroup::Account => "account_id",
        UsageGroup::Model => "model",
        UsageGroup::Provider => "provider",
    }
}

/// A text as a cell. Callers choose the names of models: one that a spreadsheet would take for a formula gets an
/// apostrophe in front (OWASP, "CSV Injection").
fn cell(text: &str) -> String {
    let apostrophe = if text.starts_with(['=', '+', '-', '@', '\t', '\r']) { "'" } else { "" };
    if text.contains(['"', ',', '\r', '\n']) {
        format!("\"{apostrophe}{}\"", text.replace('"', "\"\""))
    } else {
        format!("{apostrophe}{text}")
    }
}

/// Nano-dollars as dollars, exactly.
fn dollars(nanos: u64) -> String {
    format!("{}.{:09}", nanos / 1_000_000_000, nanos % 1_000_000_000)
}

/// Unix seconds as RFC 3339.
fn date_time(seconds: u64) -> String {
    let time = seconds % DAY;
    format!("{}T{:02}:{:02}:{:02}Z", Day::at(seconds), time / 3_600, time / 60 % 60, time % 60)
}

#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, reason = "a test whose arithmetic overflows fails, as it should")]
mod tests {
    use super::*;
    use crate::protocol::usage::Usage;
    use proptest::prelude::*;

    fn query(from: Option<u64>, to: Option<u64>) -> UsageQuery {
        UsageQuery { from, to, ..UsageQuery::default() }
    }

    fn row(group: &str, cost_nanos: u64) -> UsageRow {
        let usage = Usage { input: 3, ..Usage::default() };
        UsageRow { group: group.to_owned(), requests: 2, usage, cost_nanos, ..UsageRow::default() }
    }

    #[test]
    fn a_span_has_whole_minutes() {
        let now = 1_000_000 * 60 + 1;
        assert_eq!(Span::of(&query(None, None), now, 1).unwrap(), Span { from: 1_000_000 - 1440, to: 1_000_001 });
        assert_eq!(Span::of(&query(Some(59), Some(60)), now, 1).unwrap(), Span { from: 0, to: 1 });
        assert_eq!(Span::of(&query(Some(60), Some(61)), now, 1).unwrap(), Span { from: 1, to: 2 });
        assert_eq!(Span::of(&query(None, Some(120)), now, 1).unwrap(), Span { from: 0, to: 2 });
    }

    #[test]
    fn a_span_that_is_none_or_too_long_is_refused() {
        let field = |from, to| Span::of(&query(from, to), 1000, 2).unwrap_err().param;
        assert_eq!(field(Some(5), Some(5)).as_deref(), Some("to"));
        assert_eq!(field(None, Some(0)).as_deref(), Some("to"));
        assert_eq!(field(Some(1000), None).as_deref(), Some("from"));
        assert!(Span::of(&query(Some(0), Some(2 * DAY)), 1000, 2).is_ok());
        assert_eq!(field(Some(0), Some(2 * DAY + 1)).as_deref(), Some("from"));
    }

    #[test]
    fn sums_are_exact_or_refused() {
        let sum = total(&[row("a", MAX_NUMBER - 1), row("b", 1)]).unwrap();
        assert_eq!((sum.requests, sum.usage.input, sum.cost_nanos, sum.group.as_str()), (4, 6, MAX_NUMBER, ""));
        let refused = total(&[row("a", MAX_NUMBER), row("b", 1)]).unwrap_err();
        assert_eq!((refused.status, refused.code.as_str()), (400, "sum_too_large"));
        assert!(refused.message.contains("cost_nanos"));
        assert_eq!(total(&[]).unwrap().requests, 0);
    }

    #[test]
    fn an_export_can_be_read_and_does_nothing() {
        let rows = [row("plain", 1), row("a,\"b\"\r\nc", 1_000_000_000), row("=1+1", 0), row("@x,y", 12_345_678_901)];
        let text = csv(UsageGroup::Model, &rows);
        let expected = "model,requests,errors,unpriced,estimated,input,cache_read,cache_write_5m,cache_write_1h,\
                        input_audio,input_image,output,output_reasoning,output_audio,output_image,web_searches,\
                        images,audio_ms,characters,cost_nanos,cost_dollars\r\n\
                        plain,2,0,0,0,3,0,0,0,0,0,0,0,0,0,0,0,0,0,1,0.000000001\r\n\
                        \"a,\"\"b\"\"\r\nc\",2,0,0,0,3,0,0,0,0,0,0,0,0,0,0,0,0,0,1000000000,1.000000000\r\n\
                        '=1+1,2,0,0,0,3,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0.000000000\r\n\
                        \"'@x,y\",2,0,0,0,3,0,0,0,0,0,0,0,0,0,0,0,0,0,12345678901,12.345678901\r\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn times_are_dates() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_735_689_599, "2024-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(date_time(seconds), text);
        }
        assert!(csv(UsageGroup::Day, &[row("86400", 0)]).contains("\r\n1970-01-02T00:00:00Z,"));
    }

    proptest! {
        #[test]
        fn a_day_follows_a_day(day in 0u64..200_000) {
            let date = |day: u64| date_time(day * DAY);
            let part = |text: &str, nth: usize| text.split(['-', 'T']).nth(nth).unwrap().parse::<u64>().unwrap();
            let (today, next) = (date(day), date(day + 1));
            prop_assert!(today < next, "{today} {next}");
            let (month, day_of_month) = (part(&today, 1), part(&today, 2));
            prop_assert!((1..=12).contains(&month) && (1..=31).contains(&day_of_month), "{today}");
            let same_month = month == part(&next, 1);
            prop_assert_eq!(part(&next, 2), if same_month { day_of_month + 1 } else { 1 });
            prop_assert!(same_month || day_of_month >= 28);
        }

        #[test]
        fn a_cell_is_read_as_it_was_written(text in ".{0,20}") {
            let cell = cell(&text);
            let inner = cell.strip_prefix('"').and_then(|inner| inner.strip_suffix('"'));
            let read = inner.map_or_else(|| cell.clone(), |inner| inner.replace("\"\"", "\""));
            prop_assert_eq!(read.strip_prefix('\'').unwrap_or(&read), text.strip_prefix('\'').unwrap_or(&text));
            prop_assert!(!read.starts_with(['=', '+', '-', '@', '\t', '\r']));
        }
    }
}
