//! What a caller is told when a limit refuses its request.

use super::limit_headers::{duration, is_disclosed, rfc3339};
use crate::billing::Nanodollars;
use crate::config::Disclose;
use crate::error::{Kind, Problem};
use crate::limits::ask::Breach;
use crate::limits::rule::{Dimension, Period, Scope};

/// A wait beyond this is not worth a client's own retries, in milliseconds.
const WORTH_WAITING_MS: u64 = 60_000;

/// The refusal of a request that a limit of the account, user or key stands against; `now` is in Unix milliseconds.
pub fn refusal(breach: &Breach, disclose: Disclose, now: u64) -> Problem {
    let told = is_disclosed(breach.scope, disclose);
    let fits_never = breach.asked > breach.limit;
    let when = when(breach, now);
    if breach.dimension == Dimension::Cost {
        let message = match (told, fits_never) {
            (false, _) => {
                "A budget has no room for this request. Sending it again does not help before there is a new or \
                           a larger one."
                    .to_owned()
            }
            (true, true) => format!(
                "This request is reserved {}, more than {} has in all. Ask for less output, or for a larger budget.",
                amount(breach, breach.asked),
                name(breach),
            ),
            (true, false) if breach.used >= breach.limit => format!(
                "{} is used up: {} of it are spent or reserved. {when} Wait for that, or ask for a larger budget.",
                sentence(&name(breach)),
                amount(breach, breach.used),
            ),
            (true, false) => format!(
                "{} has no room for this request: {} of it are spent or reserved, and this request needs {} to be \
                 reserved. {when} Ask for less output, wait for that, or ask for a larger budget.",
                sentence(&name(breach)),
                amount(breach, breach.used),
                amount(breach, breach.asked),
            ),
        };
        return Problem::new(Kind::PaymentRequired, "budget_exceeded", message).final_answer();
    }
    if fits_never {
        let message = if told {
            format!(
                "This request needs {}, more than {} ever allows. Shorten it, or ask for a higher limit.",
                amount(breach, breach.asked),
                name(breach),
            )
        } else {
            "This request is larger than a limit ever allows. Shorten it, or ask for a higher limit.".to_owned()
        };
        return Problem::new(Kind::RateLimited, "request_exceeds_limit", message).final_answer();
    }
    let message = match (told, breach.dimension) {
        (false, _) => format!("A limit is reached. {when} Send the request again then."),
        (true, Dimension::Concurrency) => format!(
            "{} is reached: {} are open. Send the request again when one has ended, or ask for a higher limit.",
            sentence(&name(breach)),
            amount(breach, breach.used),
        ),
        (true, _) => format!(
            "{} is reached: {} are used or reserved, and this request needs {}. {when} Send it again then, or ask for a \
             higher limit.",
            sentence(&name(breach)),
            amount(breach, breach.used),
            amount(breach, breach.asked),
        ),
    };
    waiting(Problem::new(Kind::RateLimited, "rate_limit_exceeded", message), breach.retry_after_ms)
}

/// The refusal of a request that a limit on its provider stands against.
pub fn provider_refusal(breach: &Breach) -> Problem {
    let problem = Problem::new(
        Kind::RateLimited,
        "provider_limit",
        "This gateway asks as much of the provider of this model as it may at the moment. Send the request again later, \
         or use another model.",
    );
    waiting(problem, breach.retry_after_ms)
}

fn waiting(problem: Problem, wait: Option<u64>) -> Problem {
    match wait {
        None => problem.final_answer(),
        Some(millis) if millis > WORTH_WAITING_MS => problem.retry_after_ms(millis).final_answer(),
        Some(millis) => problem.retry_after_ms(millis),
    }
}

/// A limit as a sentence speaks of it.
fn name(breach: &Breach) -> String {
    let whose = match breach.scope {
        Scope::Key => "this API key's",
        Scope::User => "the user's",
        Scope::Account => "the account's",
        Scope::Provider => "the provider's",
    };
    let model = breach.model.as_ref().map(|model| format!(" for `{model}`")).unwrap_or_default();
    let period = match breach.period {
        Period::Second => " a second",
        Period::Minute => " a minute",
        Period::Hour => " an hour",
        Period::Day => " a day",
        Period::Week => " a week",
        Period::Month => " a month",
        Period::Total => " in all",
        Period::None => " at the same time",
    };
    let noun = if breach.dimension == Dimension::Cost { "budget" } else { "limit" };
    format!("{whose} {noun} of {}{period}{model}", amount(breach, breach.limit))
}

fn amount(breach: &Breach, amount: u64) -> String {
    let unit = match breach.dimension {
        Dimension::Cost => return format!("${}", Nanodollars(amount)),
        Dimension::Requests | Dimension::Concurrency if amount == 1 => "request",
        Dimension::Requests | Dimension::Concurrency => "requests",
        Dimension::InputTokens => "input tokens",
        Dimension::OutputTokens => "output tokens",
        Dimension::TotalTokens => "tokens",
    };
    format!("{amount} {unit}")
}

fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

/// When there is room again.
fn when(breach: &Breach, now: u64) -> String {
    match breach.retry_after_ms {
        None => "It has no room again by itself.".to_owned(),
        Some(millis) => {
            format!("There is room again in {}, at {}.", duration(millis), rfc3339(now.saturating_add(millis)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn breach(scope: Scope, dimension: Dimension, period: Period) -> Breach {
        Breach {
            rule_id: "lim_1".into(),
            scope,
            subject: "somebody-else".into(),
            model: None,
            dimension,
            period,
            limit: 60,
            used: 60,
            asked: 1,
            retry_after_ms: Some(12_345),
        }
    }

    fn told(breach: &Breach) -> (u16, String, Option<bool>, Option<String>, Option<u64>) {
        let problem = refusal(breach, Disclose::All, 1_000_000_000_000);
        (problem.status, problem.code, problem.retryable, problem.retry_after, problem.retry_after_ms)
    }

    #[test]
    fn a_rate_says_when_to_come_again() {
        let minute = breach(Scope::Key, Dimension::Requests, Period::Minute);
        assert_eq!(told(&minute), (429, "rate_limit_exceeded".into(), None, Some("13".into()), Some(12_345)));
        let day = Breach { retry_after_ms: Some(60_001), ..breach(Scope::User, Dimension::TotalTokens, Period::Day) };
        assert_eq!(told(&day), (429, "rate_limit_exceeded".into(), Some(false), Some("61".into()), Some(60_001)));
        let total = Breach { retry_after_ms: None, ..breach(Scope::Account, Dimension::Requests, Period::Total) };
        assert_eq!(told(&total), (429, "rate_limit_exceeded".into(), Some(false), None, None));
    }

    #[test]
    fn a_budget_is_a_402_and_what_never_fits_says_so() {
        let budget = breach(Scope::Account, Dimension::Cost, Period::Month);
        assert_eq!(told(&budget), (402, "budget_exceeded".into(), Some(false), None, None));
        let large =
            Breach { asked: 61, retry_after_ms: None, ..breach(Scope::Key, Dimension::InputTokens, Period::Hour) };
        assert_eq!(told(&large), (429, "request_exceeds_limit".into(), Some(false), None, None));
    }

    #[test]
    fn the_words_say_whose_limit_it_is_as_far_as_that_may_be_told() {
        let words = |breach: &Breach, disclose| refusal(breach, disclose, 1_000_000_000_000).message;
        let key = Breach { model: Some("m".into()), ..breach(Scope::Key, Dimension::Requests, Period::Minute) };
        assert_eq!(
            words(&key, Disclose::Own),
            "This API key's limit of 60 requests a minute for `m` is reached: 60 requests are used or reserved, and this \
             request needs 1 request. There is room again in 12.345s, at 2001-09-09T01:46:52.345Z. Send it again then, or \
             ask for a higher limit."
        );
        let account = breach(Scope::Account, Dimension::Cost, Period::Day);
        assert!(words(&account, Disclose::All).starts_with("The account's budget of $0.00000006 a day is used up"));
        let nearly = Breach { used: 50, asked: 20, ..account.clone() };
        assert_eq!(
            words(&nearly, Disclose::All),
            "The account's budget of $0.00000006 a day has no room for this request: $0.00000005 of it are spent or \
             reserved, and this request needs $0.00000002 to be reserved. There is room again in 12.345s, at \
             2001-09-09T01:46:52.345Z. Ask for less output, wait for that, or ask for a larger budget."
        );
        for disclose in [Disclose::Own, Disclose::None] {
            let hidden = words(&account, disclose);
            assert!(!hidden.contains("account") && !hidden.contains("60"), "{hidden}");
        }
        for breach in [key, account] {
            assert!(!words(&breach, Disclose::All).contains("somebody-else"));
        }
    }

    #[test]
    fn a_providers_limit_is_not_described() {
        let problem = provider_refusal(&breach(Scope::Provider, Dimension::Requests, Period::Minute));
        assert_eq!(
            (problem.status, problem.code.as_str(), problem.retry_after_ms),
            (429, "provider_limit", Some(12_345))
        );
        assert!(!problem.message.contains("60"));
    }
}
