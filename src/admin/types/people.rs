//! Accounts, users, members, roles.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Metadata;
use crate::auth::rbac::Permission;

/// Whether an account works.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AccountStatus {
    /// Its keys work.
    #[default]
    Active,
    /// None of its keys works.
    Suspended,
}

/// What can be set of an account.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct AccountSettings {
    /// What people call it.
    #[schemars(length(min = 1, max = 200))]
    pub name: String,
    /// Whether it works. Suspending takes effect within a second.
    #[serde(default)]
    pub status: AccountStatus,
    /// Labels.
    #[serde(default)]
    pub metadata: Metadata,
}

/// An account to make.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct AccountCreate {
    /// An id of your own choice, such as the team name that an issuer's tokens carry: letters, digits, `-`, `_`, `.`.
    /// Left out: a random one.
    #[serde(default)]
    #[schemars(length(min = 1, max = 64))]
    pub id: Option<String>,
    /// What can be changed later.
    #[serde(flatten)]
    pub settings: AccountSettings,
}

/// A team: the unit that keys belong to and that is charged.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Account {
    /// The id.
    pub id: String,
    /// What can be changed.
    #[serde(flatten)]
    pub settings: AccountSettings,
    /// Grows with each change.
    pub revision: u64,
    /// When it was made, in Unix seconds.
    pub created_at: u64,
    /// When it was last changed, in Unix seconds.
    pub updated_at: u64,
}

/// Whether a user is a person.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum UserKind {
    /// Signs in with e-mail address and password.
    #[default]
    Human,
    /// A program that acts by service tokens.
    Service,
}

/// Whether a user may sign in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum UserStatus {
    /// May sign in.
    #[default]
    Active,
    /// May not; sessions and tokens do not work.
    Disabled,
}

/// What can be set of a user.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct UserSettings {
    /// The name.
    #[schemars(length(min = 1, max = 200))]
    pub name: String,
    /// Whether the user may sign in.
    #[serde(default)]
    pub status: UserStatus,
    /// Labels.
    #[serde(default)]
    pub metadata: Metadata,
}

/// A user to make.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct UserCreate {
    /// A person or a program.
    #[serde(default)]
    pub kind: UserKind,
    /// The e-mail address; required for people, none for programs.
    #[serde(default)]
    #[schemars(length(min = 3, max = 254))]
    pub email: Option<String>,
    /// The first password, which must be changed at the first sign-in; required for people, none for programs.
    #[serde(default)]
    #[schemars(length(min = 1, max = 256))]
    pub password: Option<String>,
    /// What can be changed later.
    #[serde(flatten)]
    pub settings: UserSettings,
}

/// Somebody who uses the admin API.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct User {
    /// The id.
    pub id: String,
    /// A person or a program.
    pub kind: UserKind,
    /// The e-mail address.
    pub email: Option<String>,
    /// What can be changed.
    #[serde(flatten)]
    pub settings: UserSettings,
    /// Whether the password must be changed at the next sign-in.
    pub must_change_password: bool,
    /// When the user last signed in, in Unix seconds.
    pub last_sign_in_at: Option<u64>,
    /// Grows with each change.
    pub revision: u64,
    /// When it was made, in Unix seconds.
    pub created_at: u64,
    /// When it was last changed, in Unix seconds.
    pub updated_at: u64,
}

/// Which users.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
pub struct UserFilter {
    /// Only the user with this e-mail address.
    #[schemars(length(max = 254))]
    pub email: Option<String>,
    /// Only people or only programs.
    pub kind: Option<UserKind>,
    /// Only those that may sign in, or only those that may not.
    pub status: Option<UserStatus>,
}

/// A role that a user has everywhere.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct RoleBinding {
    /// The user.
    pub user_id: String,
    /// The role.
    pub role_id: String,
    /// Since when, in Unix seconds.
    pub created_at: u64,
}

/// The role of a member.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct MemberSettings {
    /// The role, as far as it speaks of an account's own things.
    #[schemars(length(min = 1, max = 64))]
    pub role_id: String,
}

/// Somebody who belongs to an account.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Member {
    /// The account.
    pub account_id: String,
    /// The user.
    pub user_id: String,
    /// The user's name.
    pub name: String,
    /// The user's e-mail address.
    pub email: Option<String>,
    /// The role.
    pub role_id: String,
    /// Grows with each change.
    pub revision: u64,
    /// Since when, in Unix seconds.
    pub created_at: u64,
    /// When it was last changed, in Unix seconds.
    pub updated_at: u64,
}

/// What can be set of a role.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct RoleSettings {
    /// What people call it.
    #[schemars(length(min = 1, max = 200))]
    pub name: String,
    /// What it is for.
    #[serde(default)]
    #[schemars(length(max = 1000))]
    pub description: String,
    /// What it allows.
    #[schemars(length(max = 64))]
    pub permissions: Vec<Permission>,
}

/// A set of permissions under a name.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Role {
    /// The id.
    pub id: String,
    /// What can be changed.
    #[serde(flatten)]
    pub settings: RoleSettings,
    /// Whether every deployment has it, unchangeable.
    pub built_in: bool,
    /// Grows with each change.
    pub revision: u64,
    /// When it was made, in Unix seconds.
    pub created_at: u64,
    /// When it was last changed, in Unix seconds.
    pub updated_at: u64,
}

/// A permission, explained.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct PermissionInfo {
    /// Its name, `resource:action`.
    pub name: Permission,
    /// What it allows.
    pub about: String,
    /// Whether it can be granted within one account.
    pub within_account: bool,
}
