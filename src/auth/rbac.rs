//! Who may do what in the control plane: permissions, roles, and the grants that follow from them.
//!
//! A permission is `resource:action`. A role is a set of permissions. A role is granted either globally (it then holds
//! in every account too) or within one account, where only those of its permissions count that speak of an account's own
//! things. Whatever is not granted is denied.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

macro_rules! permissions {
    ($($variant:ident $name:literal $scope:ident $about:literal;)*) => {
        /// Something that may be allowed.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
        pub enum Permission {
            $(#[doc = $about] #[serde(rename = $name)] $variant,)*
        }

        impl Permission {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// Its name, `resource:action`.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// What it allows.
            pub fn about(self) -> &'static str {
                match self { $(Self::$variant => $about,)* }
            }

            /// Whether it can be granted within one account.
            pub fn scope(self) -> Scope {
                match self { $(Self::$variant => Scope::$scope,)* }
            }
        }
    };
}

/// What a permission speaks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// The deployment.
    Global,
    /// Things that belong to an account.
    Account,
}

permissions! {
    AccountsRead "accounts:read" Account "See accounts.";
    AccountsWrite "accounts:write" Account "Change and suspend accounts.";
    AccountsCreate "accounts:create" Global "Create and delete accounts.";
    MembersRead "members:read" Account "See who belongs to an account.";
    MembersWrite "members:write" Account "Add, change and remove an account's members.";
    KeysRead "keys:read" Account "See API keys (never their secrets).";
    KeysWrite "keys:write" Account "Create, change, rotate, disable and delete API keys.";
    LimitsRead "limits:read" Account "See limits and budgets.";
    LimitsWrite "limits:write" Account "Set limits and budgets.";
    UsageRead "usage:read" Account "Query usage and cost.";
    RecordsRead "records:read" Account "Search request records.";
    AlertsRead "alerts:read" Account "See alert rules and what they raised.";
    AlertsWrite "alerts:write" Account "Create, change and delete alert rules.";
    AuditRead "audit:read" Account "Search the audit log.";
    ModelsInvoke "models:invoke" Account "Call models with a token made from one's own session.";
    UsersRead "users:read" Global "See users.";
    UsersWrite "users:write" Global "Create, change, disable and delete users; reset passwords.";
    SessionsRead "sessions:read" Global "See everybody's sessions.";
    SessionsWrite "sessions:write" Global "End everybody's sessions.";
    TokensRead "tokens:read" Global "See service tokens (never the tokens themselves).";
    TokensWrite "tokens:write" Global "Create and revoke service tokens.";
    RolesRead "roles:read" Global "See roles and permissions.";
    RolesWrite "roles:write" Global "Create and change roles; grant roles globally.";
    OwnersWrite "owners:write" Global "Make and unmake owners.";
    CredentialsRead "credentials:read" Global "See providers' credentials (never their values).";
    CredentialsWrite "credentials:write" Global "Store, replace and delete providers' credentials.";
    ProvidersRead "providers:read" Global "See providers.";
    ProvidersWrite "providers:write" Global "Change providers in the draft.";
    ProvidersTest "providers:test" Global "Test the connection to a provider.";
    ModelsRead "models:read" Global "See models.";
    ModelsWrite "models:write" Global "Change models in the draft.";
    RoutesRead "routes:read" Global "See routes.";
    RoutesWrite "routes:write" Global "Change routes in the draft.";
    PricesRead "prices:read" Global "See prices.";
    PricesWrite "prices:write" Global "Change prices in the draft.";
    ConfigRead "config:read" Global "See settings, the draft, and published versions; validate, compare, and simulate requests.";
    ConfigWrite "config:write" Global "Change settings and replace the draft as a whole.";
    ConfigPublish "config:publish" Global "Publish the draft and roll back.";
    CacheRead "cache:read" Global "See the caches.";
    CachePurge "cache:purge" Global "Empty caches.";
    HealthRead "health:read" Global "See the state of the gateway and of its providers.";
}

/// A set of permissions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PermissionSet(u64);

impl PermissionSet {
    fn bit(permission: Permission) -> u64 {
        1u64.checked_shl(permission as u32).unwrap_or(0)
    }

    /// Whether a permission is in it.
    pub fn has(self, permission: Permission) -> bool {
        self.0 & Self::bit(permission) != 0
    }

    /// Whether everything in `other` is in it.
    pub fn covers(self, other: Self) -> bool {
        other.0 & !self.0 == 0
    }

    /// What is in either.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Those that can be granted within an account.
    #[must_use]
    pub fn within_account(self) -> Self {
        self.iter().filter(|permission| permission.scope() == Scope::Account).collect()
    }

    /// Whether nothing is in it.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Its permissions, in the order of their declaration.
    pub fn iter(self) -> impl Iterator<Item = Permission> {
        Permission::ALL.iter().copied().filter(move |permission| self.has(*permission))
    }
}

impl FromIterator<Permission> for PermissionSet {
    fn from_iter<T: IntoIterator<Item = Permission>>(permissions: T) -> Self {
        Self(permissions.into_iter().fold(0, |set, permission| set | Self::bit(permission)))
    }
}

/// The ids of the roles that every deployment has.
pub const BUILT_IN_ROLES: &[&str] = &["owner", "admin", "operator", "developer", "auditor", "viewer"];

/// The permissions of a built-in role; `None` if there is no such role.
pub fn built_in_role(id: &str) -> Option<PermissionSet> {
    use Permission as P;
    let all = || Permission::ALL.iter().copied();
    let reads = |permission: &Permission| permission.name().ends_with(":read");
    Some(match id {
        "owner" => all().collect(),
        "admin" => all().filter(|permission| *permission != P::OwnersWrite).collect(),
        "auditor" => all().filter(reads).collect(),
        "operator" => all()
            .filter(|permission| {
                let resource = permission.name().split(':').next().unwrap_or_default();
                let runs = [
                    "keys",
                    "limits",
                    "usage",
                    "records",
                    "alerts",
                    "credentials",
                    "providers",
                    "models",
                    "routes",
                    "prices",
                    "config",
                    "cache",
                    "health",
                ];
                (runs.contains(&resource) && *permission != P::ModelsInvoke)
                    || matches!(permission, P::AccountsRead | P::MembersRead)
            })
            .collect(),
        "developer" => [
            P::AccountsRead,
            P::MembersRead,
            P::KeysRead,
            P::KeysWrite,
            P::LimitsRead,
            P::UsageRead,
            P::RecordsRead,
            P::AlertsRead,
            P::ModelsInvoke,
            P::ModelsRead,
            P::RoutesRead,
            P::PricesRead,
        ]
        .into_iter()
        .collect(),
        "viewer" => [
            P::AccountsRead,
            P::LimitsRead,
            P::UsageRead,
            P::AlertsRead,
            P::ProvidersRead,
            P::ModelsRead,
            P::RoutesRead,
            P::PricesRead,
            P::CacheRead,
            P::HealthRead,
        ]
        .into_iter()
        .collect(),
        _ => return None,
    })
}

/// What somebody may do, and where.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Grants {
    /// What holds everywhere.
    pub global: PermissionSet,
    /// What holds within an account in addition.
    pub accounts: BTreeMap<String, PermissionSet>,
}

impl Grants {
    /// Adds a role's permissions, everywhere or within an account.
    pub fn add(&mut self, role: PermissionSet, account: Option<&str>) {
        match account {
            None => self.global = self.global.and(role),
            Some(account) => {
                let held = self.accounts.entry(account.to_owned()).or_default();
                *held = held.and(role.within_account());
            }
        }
    }

    /// What holds within an account, or (`None`) everywhere.
    pub fn within(&self, account: Option<&str>) -> PermissionSet {
        let local = account.and_then(|account| self.accounts.get(account)).copied().unwrap_or_default();
        self.global.and(local)
    }

    /// Whether something is allowed within an account, or (`None`) for the deployment.
    pub fn allow(&self, permission: Permission, account: Option<&str>) -> bool {
        self.within(account).has(permission)
    }

    /// Whether everything that `other` allows is allowed here too. Who cannot do what somebody else can must not be able
    /// to act for him either: by resetting his password, making him a token, or granting his role.
    pub fn cover(&self, other: &Self) -> bool {
        self.global.covers(other.global)
            && other.accounts.iter().all(|(account, held)| self.within(Some(account)).covers(*held))
    }

    /// Whether a role may be granted, everywhere or within an account: nobody grants what they do not hold.
    pub fn may_grant(&self, role: PermissionSet, account: Option<&str>) -> bool {
        match account {
            None => self.global.covers(role),
            Some(_) => self.within(account).covers(role.within_account()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn set() -> impl Strategy<Value = PermissionSet> {
        proptest::collection::vec(0..Permission::ALL.len(), 0..8)
            .prop_map(|picks| picks.into_iter().map(|at| Permission::ALL[at]).collect())
    }

    fn grants() -> impl Strategy<Value = Grants> {
        (set(), proptest::collection::btree_map("[abc]", set().prop_map(PermissionSet::within_account), 0..3))
            .prop_map(|(global, accounts)| Grants { global, accounts })
    }

    #[test]
    fn permissions_fit_the_set_and_have_unique_names() {
        assert!(Permission::ALL.len() <= 64);
        let names: std::collections::BTreeSet<_> = Permission::ALL.iter().map(|permission| permission.name()).collect();
        assert_eq!(names.len(), Permission::ALL.len());
        for permission in Permission::ALL {
            assert_eq!(permission.name().split(':').count(), 2);
            assert_eq!(serde_json::to_value(permission).unwrap(), permission.name());
        }
    }

    #[test]
    fn built_in_roles_are_what_their_names_say() {
        let role = |id| built_in_role(id).unwrap();
        assert!(BUILT_IN_ROLES.iter().all(|id| built_in_role(id).is_some()) && built_in_role("x").is_none());
        assert!(role("owner").covers(role("admin")) && !role("admin").covers(role("owner")));
        for id in ["operator", "developer", "auditor", "viewer"] {
            assert!(role("admin").covers(role(id)), "{id}");
        }
        assert!(role("auditor").iter().all(|permission| permission.name().ends_with(":read")));
        assert!(role("viewer").iter().all(|permission| permission.name().ends_with(":read")));
        for secret in
            [Permission::UsersRead, Permission::AuditRead, Permission::SessionsRead, Permission::CredentialsRead]
        {
            assert!(!role("viewer").has(secret) && !role("developer").has(secret));
        }
        assert!(!role("operator").has(Permission::UsersWrite) && !role("operator").has(Permission::ModelsInvoke));
    }

    #[test]
    fn a_role_within_an_account_reaches_no_further() {
        let mut grants = Grants::default();
        grants.add(built_in_role("owner").unwrap(), Some("a"));
        assert!(grants.allow(Permission::KeysWrite, Some("a")));
        assert!(!grants.allow(Permission::KeysWrite, Some("b")) && !grants.allow(Permission::KeysWrite, None));
        assert!(!grants.allow(Permission::UsersWrite, Some("a")));
        assert!(grants.may_grant(built_in_role("admin").unwrap(), Some("a")));
        assert!(!grants.may_grant(built_in_role("viewer").unwrap(), None));
        grants.add([Permission::KeysRead].into_iter().collect(), None);
        assert!(grants.allow(Permission::KeysRead, Some("b")));
    }

    proptest! {
        #[test]
        fn nothing_granted_allows_nothing(permission in 0..Permission::ALL.len(), account in proptest::option::of("[abc]")) {
            prop_assert!(!Grants::default().allow(Permission::ALL[permission], account.as_deref()));
        }

        #[test]
        fn whoever_covers_somebody_can_do_all_that_he_can(mine in grants(), theirs in grants(), account in proptest::option::of("[abcd]")) {
            if mine.cover(&theirs) {
                for permission in theirs.within(account.as_deref()).iter() {
                    prop_assert!(mine.allow(permission, account.as_deref()));
                }
            }
        }

        #[test]
        fn granting_never_gives_more_than_the_granter_holds(mine in grants(), role in set(), account in proptest::option::of("[abc]")) {
            if mine.may_grant(role, account.as_deref()) {
                let mut theirs = Grants::default();
                theirs.add(role, account.as_deref());
                prop_assert!(mine.cover(&theirs));
            }
        }
    }
}
