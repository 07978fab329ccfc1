//! Section `timeouts`.

use super::bounds::{fields, section};

section! {
    /// Bounds on the time an upstream may take, for every provider that sets none of its own. Each one that runs out
    /// aborts the upstream request.
    #[derive(Copy, Eq)]
    pub struct Timeouts {
        /// Connecting and waiting for the first byte of a streamed reply, in milliseconds. An unstreamed reply has no byte
        /// before it is complete, so only `total_ms` bounds it.
        pub first_byte_ms: u64 = 60_000, in 50 ..= 600_000;
        /// Silence between two pieces of a reply, in milliseconds.
        pub idle_ms: u64 = 60_000, in 50 ..= 600_000;
        /// The whole reply, in milliseconds.
        pub total_ms: u64 = 600_000, in 100 ..= 3_600_000;
    }
}

fields! {
    /// Time bounds that take the place of more general ones where they are set.
    #[derive(Copy, Default, Eq)]
    #[serde(default)]
    pub struct TimeoutOverrides {
        /// In place of `timeouts.first_byte_ms`.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub first_byte_ms: Option<u64>, in 50 ..= 600_000;
        /// In place of `timeouts.idle_ms`.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub idle_ms: Option<u64>, in 50 ..= 600_000;
        /// In place of `timeouts.total_ms`.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub total_ms: Option<u64>, in 100 ..= 3_600_000;
    }
}

impl TimeoutOverrides {
    /// These bounds where they are set, `general` where they are not.
    #[must_use]
    pub fn over(self, general: Timeouts) -> Timeouts {
        Timeouts {
            first_byte_ms: self.first_byte_ms.unwrap_or(general.first_byte_ms),
            idle_ms: self.idle_ms.unwrap_or(general.idle_ms),
            total_ms: self.total_ms.unwrap_or(general.total_ms),
        }
    }

    /// Whether none is set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
