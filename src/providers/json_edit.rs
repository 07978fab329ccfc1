//! JSON changed in its bytes: single members of an object, single elements of an array. Every other byte stays.

use std::borrow::Cow;

use super::openai::scan_problem;
use crate::error::Problem;
use crate::protocol::json_scan::{Edit, Members, ScanLimits, scan_array, scan_object, splice};

/// Bounds for what lies within a body that has passed its own.
const INNER: ScanLimits = ScanLimits { max_depth: usize::MAX, max_number_bytes: usize::MAX, max_members: usize::MAX };

/// What a change makes of a text; `None` if it leaves it as it is.
pub type Changed = Result<Option<Vec<u8>>, Problem>;

/// The members of an object within a body.
///
/// # Errors
/// A 400 if it is none.
pub fn object(text: &[u8]) -> Result<Members<'_>, Problem> {
    scan_object(text, INNER).map_err(scan_problem)
}

/// A text as JSON.
pub fn quoted(text: &str) -> Vec<u8> {
    serde_json::Value::from(text).to_string().into_bytes()
}

/// A JSON string as text; `None` if it is none.
pub fn unquoted(json: &[u8]) -> Option<String> {
    serde_json::from_slice(json).ok()
}

/// Whether a text contains another.
pub fn contains(text: &[u8], part: &str) -> bool {
    text.windows(part.len().max(1)).any(|window| window == part.as_bytes())
}

#[derive(Debug, Default)]
struct Change {
    name: Option<&'static str>,
    value: Option<Vec<u8>>,
    gone: bool,
}

/// Changes members of an object.
#[derive(Debug)]
pub struct Editor<'a> {
    members: &'a Members<'a>,
    changes: Vec<Change>,
    added: Vec<(&'static str, Vec<u8>)>,
    changed: bool,
}

impl<'a> Editor<'a> {
    /// Of an object that has been scanned.
    pub fn new(members: &'a Members<'a>) -> Self {
        let changes = members.all().iter().map(|_| Change::default()).collect();
        Self { members, changes, added: Vec::new(), changed: false }
    }

    /// Where a member stands that is still there by its own name.
    ///
    /// # Errors
    /// A 400 if it stands there twice.
    pub fn find(&self, name: &str) -> Result<Option<usize>, Problem> {
        let at = self.members.position(name).map_err(scan_problem)?;
        Ok(at.filter(|at| self.changes.get(*at).is_some_and(|change| !change.gone && change.name.is_none())))
    }

    /// A member's value as it is now.
    pub fn value(&self, at: usize) -> &[u8] {
        let changed = self.changes.get(at).and_then(|change| change.value.as_deref());
        let own = || self.members.all().get(at).map(|member| self.members.raw(member));
        changed.or_else(own).unwrap_or_default()
    }

    /// The value of a member of this name, if it is there or has been added.
    ///
    /// # Errors
    /// As [`Self::find`].
    pub fn get(&self, name: &str) -> Result<Option<&[u8]>, Problem> {
        let added = || self.added.iter().find(|(added, _)| *added == name).map(|(_, value)| value.as_slice());
        Ok(self.find(name)?.map(|at| self.value(at)).or_else(added))
    }

    /// A member's text, if it is there and a text.
    ///
    /// # Errors
    /// As [`Self::find`].
    pub fn text(&self, name: &str) -> Result<Option<String>, Problem> {
        Ok(self.get(name)?.and_then(unquoted))
    }

    /// The members that are still there: their place and their name as it is now.
    pub fn names(&self) -> Vec<(usize, String)> {
        let all = self.members.all().iter().zip(&self.changes).enumerate();
        let left = all.filter(|(_, (_, change))| !change.gone);
        left.map(|(at, (member, change))| match change.name {
            Some(name) => (at, name.to_owned()),
            None => {
                let quoted = member.name.start.saturating_sub(1)..member.name.end.saturating_add(1);
                (at, self.members.text().get(quoted).and_then(unquoted).unwrap_or_default())
            }
        })
        .collect()
    }

    fn change(&mut self, at: usize, how: impl FnOnce(&mut Change)) {
        if let Some(change) = self.changes.get_mut(at) {
            how(change);
            self.changed = true;
        }
    }

    /// Takes a member out.
    pub fn remove(&mut self, at: usize) {
        self.change(at, |change| change.gone = true);
    }

    /// Takes a member out, if it is there.
    ///
    /// # Errors
    /// As [`Self::find`].
    pub fn remove_named(&mut self, name: &str) -> Result<(), Problem> {
        if let Some(at) = self.find(name)? {
            self.remove(at);
        }
        Ok(())
    }

    /// Gives a member another name.
    pub fn rename(&mut self, at: usize, name: &'static str) {
        self.change(at, |change| change.name = Some(name));
    }

    /// Gives a member another value.
    pub fn set(&mut self, at: usize, value: Vec<u8>) {
        self.change(at, |change| change.value = Some(value));
    }

    /// Gives a member this value, whether it is there or not.
    ///
    /// # Errors
    /// As [`Self::find`].
    pub fn put(&mut self, name: &'static str, value: impl Into<Vec<u8>>) -> Result<(), Problem> {
        match self.find(name)? {
            Some(at) => self.set(at, value.into()),
            None => {
                self.added.retain(|(added, _)| *added != name);
                self.added.push((name, value.into()));
                self.changed = true;
            }
        }
        Ok(())
    }

    /// Whether anything has changed.
    pub fn is_changed(&self) -> bool {
        self.changed
    }

    /// The object as it is now.
    pub fn finish(self) -> Vec<u8> {
        let (text, all) = (self.members.text(), self.members.all());
        let mut edits = Vec::new();
        let mut added = Vec::new();
        let is_empty = self.changes.iter().all(|change| change.gone);
        for (name, value) in &self.added {
            if !added.is_empty() {
                added.push(b',');
            }
            added.extend(quoted(name));
            added.push(b':');
            added.extend_from_slice(value);
        }
        if !added.is_empty() {
            if !is_empty {
                added.push(b',');
            }
            edits.push(Edit { range: self.members.open..self.members.open, with: added });
        }
        // What stands next to a member that is taken out goes with it: the comma behind it, or before it at the end.
        let mut kept_until = self.members.open;
        let mut gone_from = None;
        for (member, change) in all.iter().zip(self.changes) {
            let start = member.name.start.saturating_sub(1);
            if change.gone {
                gone_from.get_or_insert(start);
                continue;
            }
            if let Some(from) = gone_from.take() {
                edits.push(Edit { range: from..start, with: Vec::new() });
            }
            kept_until = member.value.end;
            if let Some(name) = change.name {
                edits.push(Edit { range: member.name.clone(), with: name.as_bytes().to_vec() });
            }
            if let Some(with) = change.value {
                edits.push(Edit { range: member.value.clone(), with });
            }
        }
        if gone_from.is_some() {
            let end = all.last().map_or(kept_until, |member| member.value.end);
            edits.push(Edit { range: kept_until..end, with: Vec::new() });
        }
        splice(text, edits)
    }
}

/// Changes a member of an object by what `change` makes of its value; `None` if that changes nothing.
///
/// # Errors
/// What `change` fails with, or a 400 if this is no object.
pub fn within(text: &[u8], name: &str, change: &mut dyn FnMut(&[u8]) -> Changed) -> Changed {
    let members = object(text)?;
    let mut editor = Editor::new(&members);
    let Some(at) = editor.find(name)? else { return Ok(None) };
    let Some(value) = change(editor.value(at))? else { return Ok(None) };
    editor.set(at, value);
    Ok(Some(editor.finish()))
}

/// Changes each object in an array by what `change` makes of it; `None` if that changes nothing, or if it is no array.
///
/// # Errors
/// What `change` fails with.
pub fn each(text: &[u8], change: &mut dyn FnMut(usize, &[u8]) -> Changed) -> Changed {
    if text.first() != Some(&b'[') {
        return Ok(None);
    }
    let mut list = List::read(text)?;
    for at in 0..list.len() {
        let Some(element) = list.get(at).filter(|element| element.first() == Some(&b'{')) else { continue };
        if let Some(changed) = change(at, element)? {
            list.set(at, changed);
        }
    }
    Ok(list.is_changed().then(|| list.finish()))
}

#[derive(Debug)]
struct Element<'a> {
    /// What stands before it: space, and the comma if it is not the first.
    lead: &'a [u8],
    text: Cow<'a, [u8]>,
}

/// Changes elements of an array.
#[derive(Debug)]
pub struct List<'a> {
    elements: Vec<Element<'a>>,
    tail: &'a [u8],
    changed: bool,
}

impl<'a> List<'a> {
    /// Of an array's text.
    ///
    /// # Errors
    /// A 400 if it is none.
    pub fn read(text: &'a [u8]) -> Result<Self, Problem> {
        let mut until = 1;
        let elements = scan_array(text, INNER).map_err(scan_problem)?;
        let elements = elements.into_iter().map(|range| {
            let lead = text.get(until..range.start).unwrap_or_default();
            until = range.end;
            Element { lead, text: text.get(range).unwrap_or_default().into() }
        });
        let elements = elements.collect();
        Ok(Self { elements, tail: text.get(until..).unwrap_or_default(), changed: false })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.elements.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.elements.is_empty()
    }

    /// An element's text.
    pub fn get(&self, at: usize) -> Option<&[u8]> {
        self.elements.get(at).map(|element| element.text.as_ref())
    }

    /// Gives an element another text.
    pub fn set(&mut self, at: usize, text: Vec<u8>) {
        if let Some(element) = self.elements.get_mut(at) {
            element.text = text.into();
            self.changed = true;
        }
    }

    /// Puts an element before the one at this place.
    pub fn insert(&mut self, at: usize, text: Vec<u8>) {
        self.elements.insert(at.min(self.elements.len()), Element { lead: b"", text: text.into() });
        self.changed = true;
    }

    /// Keeps only the elements that pass.
    pub fn retain(&mut self, mut keep: impl FnMut(&[u8]) -> bool) {
        let before = self.elements.len();
        self.elements.retain(|element| keep(&element.text));
        self.changed |= before != self.elements.len();
    }

    /// Takes an element out.
    pub fn remove(&mut self, at: usize) {
        if at < self.elements.len() {
            self.elements.remove(at);
            self.changed = true;
        }
    }

    /// Whether anything has changed.
    pub fn is_changed(&self) -> bool {
        self.changed
    }

    /// The array as it is now.
    pub fn finish(self) -> Vec<u8> {
        let mut out = vec![b'['];
        for (at, element) in self.elements.iter().enumerate() {
            let has_comma = element.lead.contains(&b',');
            match at {
                0 => out.extend(element.lead.iter().filter(|byte| **byte != b',')),
                _ => {
                    if !has_comma {
                        out.push(b',');
                    }
                    out.extend_from_slice(element.lead);
                }
            }
            out.extend_from_slice(&element.text);
        }
        out.extend_from_slice(self.tail);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Map, Value, json};

    fn json() -> impl Strategy<Value = Value> {
        let leaf =
            prop_oneof![Just(Value::Null), any::<bool>().prop_map(Into::into), any::<i32>().prop_map(Into::into)];
        let leaf = prop_oneof![leaf, "[a\\\\\",:{}\\[\\]é ]{0,8}".prop_map(Value::from)];
        leaf.prop_recursive(3, 16, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
                proptest::collection::btree_map("[a-c\"\\\\]{0,3}", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    fn spaced(value: &Value, wide: bool) -> String {
        if wide { serde_json::to_string_pretty(value).unwrap() } else { value.to_string() }
    }

    #[test]
    fn members_come_and_go_and_the_rest_stays() {
        let edited = |text: &str, edit: &dyn Fn(&mut Editor<'_>)| {
            let members = object(text.as_bytes()).unwrap();
            let mut editor = Editor::new(&members);
            edit(&mut editor);
            String::from_utf8(editor.finish()).unwrap()
        };
        let text = r#"{ "a" : 1 , "b":[ 2 ],  "c":3 }"#;
        assert_eq!(edited(text, &|it| it.remove(0)), r#"{ "b":[ 2 ],  "c":3 }"#);
        assert_eq!(edited(text, &|it| it.remove(1)), r#"{ "a" : 1 , "c":3 }"#);
        assert_eq!(edited(text, &|it| it.remove(2)), r#"{ "a" : 1 , "b":[ 2 ] }"#);
        assert_eq!(edited(text, &|it| (0..3).for_each(|at| it.remove(at))), "{ }");
        assert_eq!(edited(text, &|it| it.rename(1, "z")), r#"{ "a" : 1 , "z":[ 2 ],  "c":3 }"#);
        assert_eq!(edited(text, &|it| it.put("d", "4").unwrap()), r#"{"d":4, "a" : 1 , "b":[ 2 ],  "c":3 }"#);
        assert_eq!(edited("{}", &|it| it.put("d", "4").unwrap()), r#"{"d":4}"#);
    }

    proptest! {
        /// Whatever is done to members leaves JSON with exactly the others as they were.
        #[test]
        fn an_edited_object_is_the_object_with_the_edits(
            map in proptest::collection::btree_map("[a-f\"\\\\]{1,2}", json(), 0..7),
            gone in proptest::collection::vec(any::<bool>(), 7),
            set in proptest::collection::vec(proptest::option::of(json()), 7),
            add in proptest::option::of(json()),
            wide in any::<bool>(),
        ) {
            let map: Map<String, Value> = map.into_iter().collect();
            let text = spaced(&Value::Object(map.clone()), wide);
            let members = object(text.as_bytes()).unwrap();
            let mut editor = Editor::new(&members);
            let mut expected = map.clone();
            for (name, (gone, set)) in map.keys().zip(gone.iter().zip(set)) {
                let at = editor.find(name).unwrap().unwrap();
                if *gone {
                    editor.remove(at);
                    expected.remove(name);
                } else if let Some(value) = set {
                    editor.set(at, value.to_string().into_bytes());
                    expected.insert(name.clone(), value);
                }
            }
            if let Some(value) = add {
                editor.put("added", value.to_string()).unwrap();
                expected.insert("added".to_owned(), value);
            }
            if !editor.is_changed() {
                prop_assert_eq!(&editor.finish(), text.as_bytes());
            } else {
                prop_assert_eq!(serde_json::from_slice::<Value>(&editor.finish()).unwrap(), Value::Object(expected));
            }
        }

        /// The same of elements.
        #[test]
        fn an_edited_list_is_the_list_with_the_edits(
            items in proptest::collection::vec(json(), 0..6),
            edits in proptest::collection::vec((0..3_u8, any::<prop::sample::Index>(), json()), 0..6),
            wide in any::<bool>(),
        ) {
            let text = spaced(&json!(items), wide);
            let mut list = List::read(text.as_bytes()).unwrap();
            let mut expected = items.clone();
            for (kind, at, value) in edits {
                let at = at.index(expected.len().saturating_add(1));
                match kind {
                    0 => {
                        list.insert(at, value.to_string().into_bytes());
                        expected.insert(at, value);
                    }
                    1 if at < expected.len() => {
                        list.remove(at);
                        expected.remove(at);
                    }
                    2 if at < expected.len() => {
                        list.set(at, value.to_string().into_bytes());
                        expected[at] = value;
                    }
                    _ => {}
                }
            }
            let changed = list.is_changed();
            let out = list.finish();
            prop_assert_eq!(serde_json::from_slice::<Value>(&out).unwrap(), json!(expected));
            if !changed {
                prop_assert_eq!(&out, text.as_bytes());
            }
        }
    }
}
