//! Methods, one file per family. A method is a type: its name, who may call it, its parameters and its result stand
//! in one place, so none can be registered without an authorisation class.

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{Protocol, Scope};

pub mod agent;
pub mod channels;
pub mod chat;
pub mod config;
pub mod device;
pub mod events;
pub mod exec;
pub mod invite;
pub mod node;
pub mod sessions;
pub mod system;
pub mod tools;

/// Who may call a method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Every authenticated connection of any role (only `health` and `events.resume`).
    Any,
    /// Operators that hold the scope (or admin).
    Operator(Scope),
    /// Nodes only.
    Node,
}

/// A method of the Gateway protocol.
pub trait Method {
    /// Name on the wire.
    const NAME: &'static str;
    /// Checked before the parameters are read.
    const ACCESS: Access;
    /// The last protocol version that has it; on a newer socket it is an unknown method.
    const LAST: Protocol = Protocol::MAX;
    /// Named in `features.methods`. Some of the reference's are answered and not named.
    const ADVERTISED: bool = true;
    /// Unknown keys are ignored, missing required ones are `INVALID_REQUEST`.
    type Params: DeserializeOwned + Send + 'static;
    type Result: Serialize + Send + 'static;
}

/// Parameters of a method that takes none; unknown keys are ignored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoParams {}

/// `{ok: true}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    pub ok: bool,
}

impl Done {
    pub const OK: Self = Self { ok: true };
}

/// Declares a method type: `method!(Health, "health", Access::Any, Params => Result)`. A method that a protocol version
/// dropped ends with `, last Protocol::V3`, one that is not named in `features.methods` with `, unadvertised`.
#[macro_export]
macro_rules! method {
    ($(#[$doc:meta])* $name:ident, $wire:literal, $access:expr, $params:ty => $result:ty $(, last $last:expr)?) => {
        $crate::method!(@ $(#[$doc])* $name, $wire, $access, $params => $result, true $(, last $last)?);
    };
    ($(#[$doc:meta])* $name:ident, $wire:literal, $access:expr, $params:ty => $result:ty, unadvertised) => {
        $crate::method!(@ $(#[$doc])* $name, $wire, $access, $params => $result, false);
    };
    (@ $(#[$doc:meta])* $name:ident, $wire:literal, $access:expr, $params:ty => $result:ty,
     $advertised:literal $(, last $last:expr)?) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        pub struct $name;

        impl $crate::method::Method for $name {
            const NAME: &'static str = $wire;
            const ACCESS: $crate::method::Access = $access;
            $(const LAST: $crate::Protocol = $last;)?
            const ADVERTISED: bool = $advertised;
            type Params = $params;
            type Result = $result;
        }
    };
}
