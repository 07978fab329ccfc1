#![expect(clippy::arithmetic_side_effects, reason = "a test whose arithmetic overflows fails, as it should")]

use super::*;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::count::MOST;

#[test]
fn openai_counts_nest_and_are_pulled_apart() {
    let usage = Usage::from_openai(&json!({
        "prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 150,
        "prompt_tokens_details": {"cached_tokens": 60, "audio_tokens": 10, "cache_write_tokens": 5},
        "completion_tokens_details": {"reasoning_tokens": 30, "audio_tokens": 4},
    }));
    let expected = Usage {
        input: 25,
        cache_read: 60,
        cache_write_5m: 5,
        input_audio: 10,
        output: 16,
        output_reasoning: 30,
        output_audio: 4,
        ..Usage::default()
    };
    assert_eq!(usage, Some(expected));
}

#[test]
fn reasoning_beside_completion_is_added_once() {
    let usage = Usage::from_openai(&json!({
        "prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 35,
        "completion_tokens_details": {"reasoning_tokens": 20},
    }))
    .unwrap();
    assert_eq!((usage.output, usage.output_reasoning, usage.output_total()), (5, 20, 25));
}

#[test]
fn anthropic_counts_are_disjoint_and_cumulative() {
    let mut usage = Usage::default();
    usage.merge_anthropic(&json!({
        "input_tokens": 7, "cache_read_input_tokens": 100, "cache_creation_input_tokens": 30,
        "cache_creation": {"ephemeral_5m_input_tokens": 10, "ephemeral_1h_input_tokens": 20}, "output_tokens": 1,
    }));
    usage.merge_anthropic(&json!({"output_tokens": 42, "output_tokens_details": {"thinking_tokens": 12}}));
    let expected = Usage {
        input: 7,
        cache_read: 100,
        cache_write_5m: 10,
        cache_write_1h: 20,
        output: 30,
        output_reasoning: 12,
        ..Usage::default()
    };
    assert_eq!(usage, expected);
    assert_eq!(usage.to_openai().pointer("/prompt_tokens"), Some(&json!(137)));
}

#[test]
fn what_compaction_and_advisors_used_is_counted_once_however_often_it_is_told() {
    let told = json!({
        "input_tokens": 600, "cache_read_input_tokens": 0, "cache_creation_input_tokens": 4, "output_tokens": 20,
        "iterations": [
            {"type": "compaction", "input_tokens": 60_000, "cache_read_input_tokens": 7, "output_tokens": 500},
            {"type": "message", "input_tokens": 600, "output_tokens": 20},
            {"type": "advisor_message", "input_tokens": 1000, "output_tokens": 30,
             "cache_creation_input_tokens": 9, "cache_creation": {"ephemeral_1h_input_tokens": 5}},
        ],
    });
    let mut usage = Usage::default();
    usage.merge_anthropic(&json!({"input_tokens": 60_000, "output_tokens": 1}));
    usage.merge_anthropic(&told);
    usage.merge_anthropic(&told);
    assert_eq!((usage.input, usage.cache_read, usage.output), (61_600, 7, 550));
    assert_eq!(usage.cache_write_5m + usage.cache_write_1h, 13);
}

#[test]
fn what_anthropic_has_no_member_for_counts_with_the_rest() {
    let usage = Usage { input: 1, input_audio: 2, input_image: 4, output: 8, output_audio: 16, ..Usage::default() };
    let written = usage.to_anthropic();
    assert_eq!((&written["input_tokens"], &written["output_tokens"]), (&json!(7), &json!(24)));
    assert!(written.get("server_tool_use").is_none() && written.get("output_tokens_details").is_none());
}

#[test]
fn what_research_reads_and_thinks_beside_the_completion_is_counted() {
    let mut told = json!({"prompt_tokens": 33, "completion_tokens": 7163, "total_tokens": 7196, "citation_tokens": 20016,
        "num_search_queries": 18, "reasoning_tokens": 73997});
    let usage = Usage { input: 20_049, output: 7163, output_reasoning: 73_997, web_searches: 18, ..Usage::default() };
    assert_eq!(Usage::from_openai(&told), Some(usage));
    told["total_tokens"] = 81_193.into();
    assert_eq!(Usage::from_openai(&told), Some(usage));
    // Elsewhere it is a part of the completion.
    let inside = json!({"prompt_tokens": 3, "completion_tokens": 9, "total_tokens": 12, "reasoning_tokens": 5});
    let usage = Usage { input: 3, output: 4, output_reasoning: 5, ..Usage::default() };
    assert_eq!(Usage::from_openai(&inside), Some(usage));
}

#[test]
fn what_is_not_a_usage_object_is_none() {
    assert_eq!(Usage::from_openai(&Value::Null), None);
    assert_eq!(Usage::from_openai(&json!({"prompt_tokens": -5})), None);
    assert_eq!(Usage::from_openai(&json!("x")), None);
}

/// What a provider may put in the place of a count.
fn anything() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<u64>().prop_map(Value::from),
        (0..1_000u64).prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<bool>().prop_map(Value::from),
        "[0-9a-z.-]{0,22}".prop_map(Value::from),
        Just(json!([{"modality": "AUDIO", "tokenCount": 7}, {"ttl": "1h", "inputTokens": 9}, {"type": "compaction"}])),
        Just(json!({"input_tokens": -1, "cached_tokens": 5, "total_cost": "x"})),
    ]
}

/// A usage object with anything under the names that dialects have.
fn any_usage() -> impl Strategy<Value = Value> {
    const NAMES: &[&str] = &[
        "prompt_tokens",
        "completion_tokens",
        "total_tokens",
        "input_tokens",
        "output_tokens",
        "cached_tokens",
        "cache_read_input_tokens",
        "cache_creation_input_tokens",
        "iterations",
        "server_tool_use",
        "service_tier",
        "promptTokenCount",
        "candidatesTokenCount",
        "thoughtsTokenCount",
        "toolUsePromptTokenCount",
        "totalTokenCount",
        "cachedContentTokenCount",
        "promptTokensDetails",
        "candidatesTokensDetails",
        "inputTokens",
        "outputTokens",
        "cacheReadInputTokens",
        "cacheWriteInputTokens",
        "cacheDetails",
        "billed_units",
        "tokens",
        "cost",
        "speed",
    ];
    const INNER: &[&str] = &[
        "cached_tokens",
        "cache_write_tokens",
        "audio_tokens",
        "image_tokens",
        "reasoning_tokens",
        "thinking_tokens",
        "ephemeral_5m_input_tokens",
        "ephemeral_1h_input_tokens",
        "input_tokens",
        "output_tokens",
        "web_search_requests",
    ];
    const HOLDERS: &[&str] = &[
        "prompt_tokens_details",
        "completion_tokens_details",
        "input_tokens_details",
        "output_tokens_details",
        "cache_creation",
        "server_tool_use",
        "billed_units",
        "tokens",
    ];
    let members = |names: &'static [&'static str]| {
        proptest::collection::vec((proptest::sample::select(names), anything()), 0..names.len())
            .prop_map(|members| members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect::<Value>())
    };
    let holders = proptest::collection::vec((proptest::sample::select(HOLDERS), members(INNER)), 0..HOLDERS.len());
    (members(NAMES), holders).prop_map(|(mut usage, holders)| {
        for (name, value) in holders {
            usage[name] = value;
        }
        usage
    })
}

proptest! {
    #[test]
    fn whatever_is_told_is_read_and_no_part_exceeds_its_whole(first in any_usage(), second in any_usage()) {
        let number = |name: &str| super::count::count(&first, &format!("/{name}")).unwrap_or(0);
        if let Some(usage) = Usage::from_openai(&first) {
            prop_assert_eq!(usage.input_total(), number("prompt_tokens"));
            prop_assert!(usage.output_total() >= number("completion_tokens"));
        }
        if let Some(usage) = Usage::from_responses(&first) {
            prop_assert_eq!(usage.input_total(), number("input_tokens"));
            prop_assert!(usage.output_total() >= number("output_tokens"));
        }
        if let Some(usage) = Usage::from_gemini(&first) {
            prop_assert_eq!(usage.input_total(), number("promptTokenCount") + number("toolUsePromptTokenCount"));
        }
        if let Some(usage) = Usage::from_bedrock(&first) {
            prop_assert_eq!(usage.cache_write_5m + usage.cache_write_1h, number("cacheWriteInputTokens"));
        }
        let _ = Usage::from_cohere(&first);
        let mut told = Told::default();
        told.merge_anthropic(&first);
        told.merge_anthropic(&second);
        let reply = json!({"usage": first, "service_tier": second, "serviceTier": second, "output": [first, second]});
        let _ = (Told::from_openai(&reply), Usage::from_responses_reply(&reply), BillingFacts::from_bedrock(&reply));
        let _ = (BillingFacts::from_openai(&reply), BillingFacts::from_gemini(&second));
    }

    #[test]
    fn what_anthropic_can_say_is_read_as_it_was_written(counts in proptest::array::uniform7(0..1_u64 << 40)) {
        let [input, cache_read, cache_write_5m, cache_write_1h, output, output_reasoning, web_searches] = counts;
        let usage = Usage {
            input, cache_read, cache_write_5m, cache_write_1h, output, output_reasoning, web_searches,
            ..Usage::default()
        };
        let mut read = Usage::default();
        read.merge_anthropic(&usage.to_anthropic());
        prop_assert_eq!(read, usage);
    }

    #[test]
    fn no_report_makes_a_part_exceed_its_whole(
        prompt: u64, completion: u64, cached: u64, written: u64, audio: u64, reasoning: u64, out_audio: u64, total: u64
    ) {
        let usage = Usage::from_openai(&json!({
            "prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": total,
            "prompt_tokens_details": {"cached_tokens": cached, "cache_write_tokens": written, "audio_tokens": audio},
            "completion_tokens_details": {"reasoning_tokens": reasoning, "audio_tokens": out_audio},
        })).unwrap();
        prop_assert_eq!(usage.input_total(), prompt.min(MOST));
        prop_assert!(usage.output_total() >= completion.min(MOST));
    }

    #[test]
    fn a_responses_usage_object_is_read_as_it_was_written(
        counts in proptest::array::uniform9(0..1_u64 << 40)
    ) {
        let [input, cache_read, cache_write_5m, input_audio, input_image, output, output_reasoning, output_audio, output_image]
            = counts;
        let usage = Usage {
            input, cache_read, cache_write_5m, input_audio, input_image, output, output_reasoning, output_audio,
            output_image, ..Usage::default()
        };
        let written = usage.to_responses();
        prop_assert_eq!(Usage::from_responses(&written), Some(usage));
        prop_assert_eq!(&written["total_tokens"], &json!(counts.iter().sum::<u64>()));
    }
}
