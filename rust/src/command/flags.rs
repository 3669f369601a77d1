//! The flags a server gives its commands.

use bitflags::bitflags;

bitflags! {
    /// What Redis itself says about a command (`COMMAND INFO`), word for word. What *redisha* does with a command
    /// is in [`EffectClass`](super::EffectClass), [`ReplyClass`](super::ReplyClass) and
    /// [`Treatment`](super::Treatment).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Flags: u32 {
        /// May change data. Not the whole truth: `PUBLISH` and `SCRIPT LOAD` have effects without it.
        const WRITE = 1;
        /// Reads data.
        const READONLY = 1 << 1;
        /// Refused when memory is used up.
        const DENYOOM = 1 << 2;
        /// For administrators.
        const ADMIN = 1 << 3;
        /// Belongs to publish and subscribe.
        const PUBSUB = 1 << 4;
        /// Not allowed in scripts.
        const NOSCRIPT = 1 << 5;
        /// May block its connection.
        const BLOCKING = 1 << 6;
        /// Allowed while the data is loading.
        const LOADING = 1 << 7;
        /// Allowed on a replica with stale data.
        const STALE = 1 << 8;
        /// Constant or logarithmic time.
        const FAST = 1 << 9;
        /// Allowed before authentication.
        const NO_AUTH = 1 << 10;
        /// Its keys are not where first, last and step say.
        const MOVABLE_KEYS = 1 << 11;
        /// Allowed on an importing cluster slot.
        const ASKING = 1 << 12;
        /// Allowed while a script runs for too long.
        const ALLOW_BUSY = 1 << 13;
        /// Not shown by `MONITOR`.
        const SKIP_MONITOR = 1 << 14;
        /// Not recorded in the slow log.
        const SKIP_SLOWLOG = 1 << 15;
        /// May come without keys although it takes some.
        const NO_MANDATORY_KEYS = 1 << 16;
        /// Refused while a replica loads in the background.
        const NO_ASYNC_LOADING = 1 << 17;
        /// Not allowed in a transaction.
        const NO_MULTI = 1 << 18;
    }
}
