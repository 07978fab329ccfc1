//! OpenAI's markers behind what is to be cached of a prompt, which its models know from GPT-5.6 on: on texts, pictures and
//! files of whoever is not the model. <https://developers.openai.com/api/docs/guides/prompt-caching#prompt-cache-breakpoints>

use serde_json::{Value, json};

const MEMBER: &str = "prompt_cache_breakpoint";

/// A request may write four entries, and the one behind its latest message is written unasked.
const MOST: usize = 3;

/// Puts a marker on a content part.
pub(super) fn mark(part: &mut Value) {
    if let Some(part) = part.as_object_mut() {
        part.insert(MEMBER.to_owned(), json!({"mode": "explicit"}));
    }
}

/// Leaves the first markers, as many as there may be, on the parts of messages or items. How many those are.
pub(super) fn bound(items: &mut [Value]) -> usize {
    let mut left = 0_usize;
    let lists = items.iter_mut().filter_map(Value::as_object_mut).flat_map(|item| item.values_mut());
    for part in lists.filter_map(Value::as_array_mut).flatten().filter_map(Value::as_object_mut) {
        if left == MOST {
            part.shift_remove(MEMBER);
        } else {
            left = left.saturating_add(usize::from(part.contains_key(MEMBER)));
        }
    }
    left
}
