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
fn what_is_not_a_usage_object_is_none() {
    assert_eq!(Usage::from_openai(&Value::Null), None);
    assert_eq!(Usage::from_openai(&json!({"prompt_tokens": -5})), None);
    assert_eq!(Usage::from_openai(&json!("x")), None);
}

proptest! {
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
}
