//! How a section is declared: its fields, their defaults and their bounds in one place, from which the type, its JSON
//! Schema and its validation are all made, so that they cannot disagree.

use std::collections::BTreeMap;

use serde_json::Value;

use super::ConfigProblem;

/// Something whose size a bound can speak about.
pub(super) trait Measure {
    /// The number itself, or how many items, characters or entries there are; `None` where nothing is set.
    fn measure(&self) -> Option<u64>;
}

impl Measure for u64 {
    fn measure(&self) -> Option<u64> {
        Some(*self)
    }
}

impl Measure for u32 {
    fn measure(&self) -> Option<u64> {
        Some(u64::from(*self))
    }
}

impl Measure for usize {
    fn measure(&self) -> Option<u64> {
        Some(*self as u64)
    }
}

impl Measure for String {
    fn measure(&self) -> Option<u64> {
        Some(self.chars().count() as u64)
    }
}

impl<T> Measure for Vec<T> {
    fn measure(&self) -> Option<u64> {
        Some(self.len() as u64)
    }
}

impl<T> Measure for BTreeMap<String, T> {
    fn measure(&self) -> Option<u64> {
        Some(self.len() as u64)
    }
}

impl<T: Measure> Measure for Option<T> {
    fn measure(&self) -> Option<u64> {
        self.as_ref().and_then(Measure::measure)
    }
}

/// A declared section: checks the bounds of its own fields.
pub(super) trait Bounded {
    /// Reports every field that is out of its bounds.
    fn check_bounds(&self, path: &str, found: &mut Problems);
}

/// What is wrong so far.
#[derive(Default)]
pub(super) struct Problems(pub(super) Vec<ConfigProblem>);

impl Problems {
    /// Notes a problem.
    pub(super) fn add(&mut self, path: &str, message: impl Into<String>) {
        self.0.push(ConfigProblem { path: path.to_owned(), message: message.into() });
    }

    /// Notes the fields of `path` that are out of their bounds.
    pub(super) fn check(&mut self, path: &str, bounds: &[Bound]) {
        for (field, measured, min, max, unit) in bounds {
            if let Some(value) = measured.filter(|value| value < min || value > max) {
                let message = match *unit {
                    "" => format!("is {value}, but must be {min} to {max}"),
                    unit => format!("has {value} {unit}, but must have {min} to {max}"),
                };
                self.add(&at(path, field), message);
            }
        }
    }
}

/// A field's name, its size, the least and the most that are allowed, and what is counted (empty for a plain number).
pub(super) type Bound = (&'static str, Option<u64>, u64, u64, &'static str);

/// The path of a field of something.
pub(super) fn at(parent: &str, field: &str) -> String {
    if parent.is_empty() { field.to_owned() } else { format!("{parent}.{field}") }
}

/// Whether a value is a string, a number or a truth value.
pub(super) fn is_scalar(value: &Value) -> bool {
    matches!(value, Value::String(_) | Value::Number(_) | Value::Bool(_))
}

/// Declares a section: every field has a default, and may have a bound. Bounds are `in min ..= max` for a number,
/// `items`, `chars` and `entries` for the size of a list, a string and a map.
macro_rules! section {
    (
        $(#[$meta:meta])*
        pub struct $name:ident {
            $(
                $(#[$field_meta:meta])*
                pub $field:ident: $type:ty = $default:expr $(, $kind:ident $min:literal ..= $max:literal)?;
            )*
        }
    ) => {
        $crate::config::bounds::fields! {
            #[serde(default)]
            $(#[$meta])*
            pub struct $name { $( $(#[$field_meta])* pub $field: $type $(, $kind $min ..= $max)?; )* }
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $( $field: $default, )* }
            }
        }
    };
}

/// Declares the type of an entry, some of whose fields have no default. Bounds are as for a section.
macro_rules! fields {
    // One field after the other is taken over with its bound turned into an attribute and a check.
    (
        @fields [$(#[$meta:meta])*] $name:ident { $($done:tt)* } { $($checks:tt)* }
        $(#[$field_meta:meta])* pub $field:ident: $type:ty; $($rest:tt)*
    ) => {
        $crate::config::bounds::fields! {
            @fields [$(#[$meta])*] $name { $($done)* $(#[$field_meta])* pub $field: $type, } { $($checks)* } $($rest)*
        }
    };
    (
        @fields [$(#[$meta:meta])*] $name:ident { $($done:tt)* } { $($checks:tt)* }
        $(#[$field_meta:meta])* pub $field:ident: $type:ty, in $min:literal ..= $max:literal; $($rest:tt)*
    ) => {
        $crate::config::bounds::fields! {
            @fields [$(#[$meta])*] $name
            { $($done)* $(#[$field_meta])* #[schemars(range(min = $min, max = $max))] pub $field: $type, }
            { $($checks)* ($field, $min, $max, "") } $($rest)*
        }
    };
    (
        @fields [$(#[$meta:meta])*] $name:ident { $($done:tt)* } { $($checks:tt)* }
        $(#[$field_meta:meta])* pub $field:ident: $type:ty, items $min:literal ..= $max:literal; $($rest:tt)*
    ) => {
        $crate::config::bounds::fields! {
            @fields [$(#[$meta])*] $name
            { $($done)* $(#[$field_meta])* #[schemars(length(min = $min, max = $max))] pub $field: $type, }
            { $($checks)* ($field, $min, $max, "items") } $($rest)*
        }
    };
    (
        @fields [$(#[$meta:meta])*] $name:ident { $($done:tt)* } { $($checks:tt)* }
        $(#[$field_meta:meta])* pub $field:ident: $type:ty, chars $min:literal ..= $max:literal; $($rest:tt)*
    ) => {
        $crate::config::bounds::fields! {
            @fields [$(#[$meta])*] $name
            { $($done)* $(#[$field_meta])* #[schemars(length(min = $min, max = $max))] pub $field: $type, }
            { $($checks)* ($field, $min, $max, "characters") } $($rest)*
        }
    };
    (
        @fields [$(#[$meta:meta])*] $name:ident { $($done:tt)* } { $($checks:tt)* }
        $(#[$field_meta:meta])* pub $field:ident: $type:ty, entries $min:literal ..= $max:literal; $($rest:tt)*
    ) => {
        $crate::config::bounds::fields! {
            @fields [$(#[$meta])*] $name
            {
                $($done)* $(#[$field_meta])*
                #[schemars(extend("minProperties" = $min, "maxProperties" = $max))] pub $field: $type,
            }
            { $($checks)* ($field, $min, $max, "entries") } $($rest)*
        }
    };
    (
        @fields [$(#[$meta:meta])*] $name:ident { $($done:tt)* }
        { $(($field:ident, $min:literal, $max:literal, $unit:literal))* }
    ) => {
        #[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
        $(#[$meta])*
        pub struct $name { $($done)* }

        impl $crate::config::bounds::Bounded for $name {
            fn check_bounds(&self, path: &str, found: &mut $crate::config::bounds::Problems) {
                let bounds: &[$crate::config::bounds::Bound] = &[
                    $( (stringify!($field), $crate::config::bounds::Measure::measure(&self.$field), $min, $max, $unit), )*
                ];
                found.check(path, bounds);
            }
        }
    };
    ($(#[$meta:meta])* pub struct $name:ident { $($fields:tt)* }) => {
        $crate::config::bounds::fields! { @fields [$(#[$meta])*] $name {} {} $($fields)* }
    };
}

pub(super) use {fields, section};
