//! Roles and operator scopes: a closed set, with the implications of the reference.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Who a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    Operator,
    Node,
}

impl Role {
    pub const ALL: [Self; 2] = [Self::Operator, Self::Node];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Node => "node",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == text)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One operator right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Scope {
    Admin,
    Read,
    Write,
    Approvals,
    Questions,
    Pairing,
    Talk,
    TalkSecrets,
}

impl Scope {
    pub const ALL: [Self; 8] = [
        Self::Admin,
        Self::Read,
        Self::Write,
        Self::Approvals,
        Self::Questions,
        Self::Pairing,
        Self::Talk,
        Self::TalkSecrets,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "operator.admin",
            Self::Read => "operator.read",
            Self::Write => "operator.write",
            Self::Approvals => "operator.approvals",
            Self::Questions => "operator.questions",
            Self::Pairing => "operator.pairing",
            Self::Talk => "operator.talk",
            Self::TalkSecrets => "operator.talk.secrets",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == text)
    }

    const fn bit(self) -> u16 {
        1 << self as u8
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A set of operator scopes. Strings outside the closed set are dropped when a list is read, so an unknown scope
/// never becomes a right.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct ScopeSet(u16);

impl ScopeSet {
    pub const EMPTY: Self = Self(0);

    /// Every operator scope.
    pub fn all() -> Self {
        Scope::ALL.into_iter().collect()
    }

    /// Reads a list from the wire, a token record or config; unknown names are ignored.
    pub fn parse<S: AsRef<str>>(list: &[S]) -> Self {
        list.iter().filter_map(|text| Scope::parse(text.as_ref())).collect()
    }

    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Membership as written, without implication.
    pub const fn has(self, scope: Scope) -> bool {
        self.0 & scope.bit() != 0
    }

    /// True when the set grants `scope`: admin grants all, write grants read and talk, nothing else implies anything.
    pub const fn grants(self, scope: Scope) -> bool {
        self.has(scope)
            || self.has(Scope::Admin)
            || (self.has(Scope::Write) && matches!(scope, Scope::Read | Scope::Talk))
    }

    /// True when every scope of `other` is granted by `self`.
    pub fn covers(self, other: Self) -> bool {
        other.iter().all(|scope| self.grants(scope))
    }

    pub fn insert(&mut self, scope: Scope) {
        self.0 |= scope.bit();
    }

    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The members of `self` that `ceiling` grants.
    pub fn limited_to(self, ceiling: Self) -> Self {
        self.iter().filter(|scope| ceiling.grants(*scope)).collect()
    }

    pub fn iter(self) -> impl Iterator<Item = Scope> {
        Scope::ALL.into_iter().filter(move |scope| self.has(*scope))
    }

    /// The names, in the fixed order of [`Scope::ALL`].
    pub fn names(self) -> Vec<&'static str> {
        self.iter().map(Scope::as_str).collect()
    }
}

impl FromIterator<Scope> for ScopeSet {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        let mut set = Self::EMPTY;
        scopes.into_iter().for_each(|scope| set.insert(scope));
        set
    }
}

impl fmt::Debug for ScopeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}

impl Serialize for ScopeSet {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.names())
    }
}

impl<'de> Deserialize<'de> for ScopeSet {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self::parse(&Vec::<String>::deserialize(deserializer)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(list: &[Scope]) -> ScopeSet {
        list.iter().copied().collect()
    }

    #[test]
    fn implications_are_the_reference_ones() {
        assert!(Scope::ALL.into_iter().all(|scope| set(&[Scope::Admin]).grants(scope)));
        let write = set(&[Scope::Write]);
        let granted: Vec<_> = Scope::ALL.into_iter().filter(|s| write.grants(*s)).collect();
        assert_eq!(granted, [Scope::Read, Scope::Write, Scope::Talk]);
        for alone in [Scope::Read, Scope::Approvals, Scope::Questions, Scope::Pairing, Scope::Talk, Scope::TalkSecrets]
        {
            let granted: Vec<_> = Scope::ALL.into_iter().filter(|s| set(&[alone]).grants(*s)).collect();
            assert_eq!(granted, [alone]);
        }
    }

    #[test]
    fn unknown_names_are_no_right() {
        assert!(ScopeSet::parse(&["operator.root", "admin", "operator.admin ", ""]).is_empty());
    }

    #[test]
    fn limiting_never_widens() {
        let asked = set(&[Scope::Admin, Scope::Read]);
        assert_eq!(asked.limited_to(set(&[Scope::Write])), set(&[Scope::Read]));
    }
}
