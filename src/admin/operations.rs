//! Every operation of the admin API in one table: method, path, who may call it, what it takes and gives.
//!
//! The router, the authorisation and the OpenAPI document all come from this table, so an operation that is not in it
//! does not exist, and none can be called without what it says here.

use http::Method;
use schemars::JsonSchema;
#[cfg(not(target_arch = "wasm32"))]
use schemars::{Schema, SchemaGenerator};

use super::types::{
    List, Page, alerts::*, catalog::*, configuration::*, health::*, identity::*, keys::*, people::*, records::*,
    standing::*,
};
use crate::auth::rbac::Permission::{self, *};
use crate::config;

/// Who may call an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Anybody.
    Public,
    /// Whoever is signed in; it concerns himself alone.
    SignedIn,
    /// Whoever has the permission globally.
    Global(Permission),
    /// Whoever has the permission in the account that the path names, or globally.
    Account(Permission),
}

/// What a successful reply's body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply {
    /// JSON.
    Json,
    /// Comma-separated values.
    Csv,
    /// None.
    Empty,
}

/// A JSON Schema to be generated.
#[cfg(not(target_arch = "wasm32"))]
pub type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// One operation.
#[derive(Debug, Clone, Copy)]
pub struct Operation {
    /// Which one.
    pub op: Op,
    /// The method.
    pub method: Verb,
    /// The path, with parameters in braces.
    pub path: &'static str,
    /// Who may call it.
    pub access: Access,
    /// What it does, in a line.
    pub summary: &'static str,
    /// The status of success.
    pub status: u16,
    /// What the body of success is.
    pub reply: Reply,
    /// Whether it is paged by `limit` and `cursor`.
    pub paged: bool,
    /// Whether the reply carries an ETag, or the request may carry `if-match`.
    pub versioned: bool,
    /// Whether every field of the body may be left out, what is left out staying as it is (RFC 7396).
    pub merge: bool,
    /// Schemas of body, query and reply.
    #[cfg(not(target_arch = "wasm32"))]
    pub schemas: Schemas,
}

/// Schemas of what an operation takes and gives.
#[cfg(not(target_arch = "wasm32"))]
#[derive(Debug, Clone, Copy)]
pub struct Schemas {
    /// The request's body.
    pub body: Option<SchemaOf>,
    /// The query, but for paging.
    pub query: Option<SchemaOf>,
    /// The reply's body.
    pub reply: Option<SchemaOf>,
}

/// The methods in use; `http::Method` is not `Copy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// GET
    Get,
    /// POST
    Post,
    /// PUT
    Put,
    /// PATCH
    Patch,
    /// DELETE
    Delete,
}

impl Verb {
    /// The method itself.
    pub fn method(self) -> Method {
        match self {
            Self::Get => Method::GET,
            Self::Post => Method::POST,
            Self::Put => Method::PUT,
            Self::Patch => Method::PATCH,
            Self::Delete => Method::DELETE,
        }
    }

    /// Whether it changes anything.
    pub fn writes(self) -> bool {
        self != Self::Get
    }
}

impl Operation {
    const fn new(op: Op, method: Verb, path: &'static str, access: Access, summary: &'static str) -> Self {
        Self {
            op,
            method,
            path,
            access,
            summary,
            status: 204,
            reply: Reply::Empty,
            paged: false,
            versioned: false,
            merge: false,
            #[cfg(not(target_arch = "wasm32"))]
            schemas: Schemas { body: None, query: None, reply: None },
        }
    }
}

macro_rules! schema_setter {
    ($(#[$doc:meta])* $name:ident $slot:ident) => {
        #[cfg(not(target_arch = "wasm32"))]
        $(#[$doc])*
        const fn $name<T: JsonSchema>(mut self) -> Self {
            fn of<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
                generator.subschema_for::<T>()
            }
            self.schemas.$slot = Some(of::<T>);
            self
        }

        #[cfg(target_arch = "wasm32")]
        #[expect(clippy::extra_unused_type_parameters, reason = "the Worker carries the generated description instead")]
        $(#[$doc])*
        const fn $name<T: JsonSchema>(self) -> Self {
            self
        }
    };
}

impl Operation {
    schema_setter!(set_body body);
    schema_setter!(set_query query);
    schema_setter!(set_reply reply);

    const fn takes<T: JsonSchema>(self) -> Self {
        self.set_body::<T>()
    }

    const fn merges<T: JsonSchema>(self) -> Self {
        let mut this = self.set_body::<T>();
        this.merge = true;
        this.versioned = true;
        this
    }

    const fn asks<T: JsonSchema>(self) -> Self {
        self.set_query::<T>()
    }

    const fn gives<T: JsonSchema>(self) -> Self {
        let mut this = self.set_reply::<T>();
        this.reply = Reply::Json;
        this.status = 200;
        this
    }

    const fn creates<T: JsonSchema>(self) -> Self {
        let mut this = self.gives::<T>();
        this.status = 201;
        this
    }

    const fn pages<T: JsonSchema>(self) -> Self {
        let mut this = self.gives::<Page<T>>();
        this.paged = true;
        this
    }

    const fn csv(mut self) -> Self {
        self.reply = Reply::Csv;
        self.status = 200;
        self
    }

    const fn versioned(mut self) -> Self {
        self.versioned = true;
        self
    }
}

macro_rules! operations {
    ($($op:ident $method:ident $path:literal $access:expr, $summary:literal $(, $set:ident $(::<$type:ty>)?)*;)*) => {
        /// The operations.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Op {
            $(#[doc = $summary] $op,)*
        }

        /// The table.
        pub const OPERATIONS: &[Operation] = &[
            $(Operation::new(Op::$op, Verb::$method, $path, $access, $summary)$(.$set$(::<$type>)?())*,)*
        ];
    };
}

use Access::{Account as In, Global, Public, SignedIn};

operations! {
    // === Signing in ===
    Bootstrap Post "/admin/v1/bootstrap" Public, "Make the first administrator, once", takes::<Bootstrap>, creates::<User>;
    SignIn Post "/admin/v1/auth/sign-in" Public, "Sign in", takes::<SignIn>, gives::<Tokens>;
    RefreshTokens Post "/admin/v1/auth/refresh" Public, "Renew an access token", takes::<Refresh>, gives::<Tokens>;
    SignOut Post "/admin/v1/auth/sign-out" SignedIn, "End one's session";
    GetJwks Get "/admin/v1/auth/jwks" Public, "See the public keys that access tokens are signed with", gives::<serde_json::Value>;
    GetMe Get "/admin/v1/me" SignedIn, "See who is signed in, and what he may do", gives::<Me>;
    UpdateMe Patch "/admin/v1/me" SignedIn, "Change one's own name", takes::<MeChange>, gives::<User>;
    ChangeMyPassword Put "/admin/v1/me/password" SignedIn, "Change one's own password", takes::<PasswordChange>;
    ListMySessions Get "/admin/v1/me/sessions" SignedIn, "List one's own sessions", pages::<Session>;
    EndMySession Delete "/admin/v1/me/sessions/{session}" SignedIn, "End one of one's own sessions";

    // === Users, sessions, service tokens ===
    ListUsers Get "/admin/v1/users" Global(UsersRead), "List users", asks::<UserFilter>, pages::<User>;
    CreateUser Post "/admin/v1/users" Global(UsersWrite), "Create a user", takes::<UserCreate>, creates::<User>, versioned;
    GetUser Get "/admin/v1/users/{user}" Global(UsersRead), "See a user", gives::<User>, versioned;
    UpdateUser Patch "/admin/v1/users/{user}" Global(UsersWrite), "Change a user", merges::<UserSettings>, gives::<User>;
    DeleteUser Delete "/admin/v1/users/{user}" Global(UsersWrite), "Delete a user", versioned;
    ResetPassword Put "/admin/v1/users/{user}/password" Global(UsersWrite), "Set a user's password", takes::<PasswordReset>;
    ListSessions Get "/admin/v1/sessions" Global(SessionsRead), "List everybody's sessions", pages::<Session>;
    ListUserSessions Get "/admin/v1/users/{user}/sessions" Global(SessionsRead), "List a user's sessions", pages::<Session>;
    EndUserSessions Delete "/admin/v1/users/{user}/sessions" Global(SessionsWrite), "End all sessions of a user";
    EndUserSession Delete "/admin/v1/users/{user}/sessions/{session}" Global(SessionsWrite), "End a session of a user";
    ListServiceTokens Get "/admin/v1/users/{user}/tokens" Global(TokensRead), "List a user's service tokens", pages::<ServiceToken>;
    CreateServiceToken Post "/admin/v1/users/{user}/tokens" Global(TokensWrite), "Create a service token", takes::<ServiceTokenCreate>, creates::<ServiceTokenCreated>;
    RevokeServiceToken Delete "/admin/v1/users/{user}/tokens/{token}" Global(TokensWrite), "Revoke a service token";

    // === Roles ===
    ListPermissions Get "/admin/v1/permissions" Global(RolesRead), "List permissions", gives::<List<PermissionInfo>>;
    ListRoles Get "/admin/v1/roles" Global(RolesRead), "List roles", pages::<Role>;
    CreateRole Post "/admin/v1/roles" Global(RolesWrite), "Create a role", takes::<RoleSettings>, creates::<Role>, versioned;
    GetRole Get "/admin/v1/roles/{role}" Global(RolesRead), "See a role", gives::<Role>, versioned;
    UpdateRole Patch "/admin/v1/roles/{role}" Global(RolesWrite), "Change a role", merges::<RoleSettings>, gives::<Role>;
    DeleteRole Delete "/admin/v1/roles/{role}" Global(RolesWrite), "Delete a role", versioned;
    ListUserRoles Get "/admin/v1/users/{user}/roles" Global(UsersRead), "List the roles that a user has everywhere", gives::<List<RoleBinding>>;
    GrantRole Put "/admin/v1/users/{user}/roles/{role}" Global(RolesWrite), "Grant a role everywhere", gives::<RoleBinding>;
    WithdrawRole Delete "/admin/v1/users/{user}/roles/{role}" Global(RolesWrite), "Withdraw a role that was granted everywhere";

    // === Accounts and members ===
    ListAccounts Get "/admin/v1/accounts" SignedIn, "List the accounts that one may see", pages::<Account>;
    CreateAccount Post "/admin/v1/accounts" Global(AccountsCreate), "Create an account", takes::<AccountCreate>, creates::<Account>, versioned;
    GetAccount Get "/admin/v1/accounts/{account}" In(AccountsRead), "See an account", gives::<Account>, versioned;
    UpdateAccount Patch "/admin/v1/accounts/{account}" In(AccountsWrite), "Change or suspend an account", merges::<AccountSettings>, gives::<Account>;
    DeleteAccount Delete "/admin/v1/accounts/{account}" Global(AccountsCreate), "Delete an account that has no keys", versioned;
    ListMembers Get "/admin/v1/accounts/{account}/members" In(MembersRead), "List an account's members", pages::<Member>;
    GetMember Get "/admin/v1/accounts/{account}/members/{user}" In(MembersRead), "See a member", gives::<Member>, versioned;
    PutMember Put "/admin/v1/accounts/{account}/members/{user}" In(MembersWrite), "Add a member, or change the role", takes::<MemberSettings>, gives::<Member>, versioned;
    RemoveMember Delete "/admin/v1/accounts/{account}/members/{user}" In(MembersWrite), "Remove a member", versioned;

    // === Keys and limits ===
    SearchKeys Get "/admin/v1/keys" Global(KeysRead), "Search the keys of all accounts", asks::<KeyFilter>, pages::<Key>;
    ListKeys Get "/admin/v1/accounts/{account}/keys" In(KeysRead), "List an account's keys", asks::<KeyFilter>, pages::<Key>;
    CreateKey Post "/admin/v1/accounts/{account}/keys" In(KeysWrite), "Create a key; it is shown only once", takes::<KeyCreate>, creates::<KeyIssued>, versioned;
    GetKey Get "/admin/v1/accounts/{account}/keys/{key}" In(KeysRead), "See a key", gives::<Key>, versioned;
    UpdateKey Patch "/admin/v1/accounts/{account}/keys/{key}" In(KeysWrite), "Change or disable a key", merges::<KeySettings>, gives::<Key>;
    DeleteKey Delete "/admin/v1/accounts/{account}/keys/{key}" In(KeysWrite), "Delete a key", versioned;
    RotateKey Post "/admin/v1/accounts/{account}/keys/{key}/rotate" In(KeysWrite), "Give a key a new secret; it is shown only once", takes::<KeyRotation>, gives::<KeyIssued>, versioned;
    ListLimits Get "/admin/v1/accounts/{account}/limits" In(LimitsRead), "List an account's limits and budgets", pages::<Limit>;
    CreateLimit Post "/admin/v1/accounts/{account}/limits" In(LimitsWrite), "Create a limit or a budget", takes::<LimitSettings>, creates::<Limit>, versioned;
    GetStanding Get "/admin/v1/accounts/{account}/limits/state" In(LimitsRead), "See how limits stand, and what was used in the running periods", asks::<StandingFilter>, gives::<Standing>;
    GetConnections Get "/admin/v1/accounts/{account}/connections" In(LimitsRead), "See which requests are open", gives::<Connections>;
    GetLimit Get "/admin/v1/accounts/{account}/limits/{limit}" In(LimitsRead), "See a limit", gives::<Limit>, versioned;
    UpdateLimit Patch "/admin/v1/accounts/{account}/limits/{limit}" In(LimitsWrite), "Change a limit", merges::<LimitSettings>, gives::<Limit>;
    DeleteLimit Delete "/admin/v1/accounts/{account}/limits/{limit}" In(LimitsWrite), "Delete a limit", versioned;
    CreateModelToken Post "/admin/v1/accounts/{account}/model-tokens" In(ModelsInvoke), "Make a short-lived token for calling models", takes::<ModelTokenRequest>, creates::<ModelToken>;

    // === Providers' credentials ===
    ListCredentials Get "/admin/v1/credentials" Global(CredentialsRead), "List providers' credentials", pages::<Credential>;
    CreateCredential Post "/admin/v1/credentials" Global(CredentialsWrite), "Store a credential", takes::<CredentialSettings>, creates::<Credential>, versioned;
    GetCredential Get "/admin/v1/credentials/{credential}" Global(CredentialsRead), "See a credential (never its value)", gives::<Credential>, versioned;
    ReplaceCredential Put "/admin/v1/credentials/{credential}" Global(CredentialsWrite), "Replace a credential; it is in use within seconds", takes::<CredentialSettings>, gives::<Credential>, versioned;
    DeleteCredential Delete "/admin/v1/credentials/{credential}" Global(CredentialsWrite), "Delete a credential that no provider uses", versioned;

    // === The draft's entries ===
    ListProviders Get "/admin/v1/providers" Global(ProvidersRead), "List the draft's providers", pages::<Entry<config::Provider>>;
    GetProvider Get "/admin/v1/providers/{name}" Global(ProvidersRead), "See a provider", gives::<Entry<config::Provider>>, versioned;
    PutProvider Put "/admin/v1/providers/{name}" Global(ProvidersWrite), "Create or replace a provider", takes::<config::Provider>, gives::<Entry<config::Provider>>, versioned;
    UpdateProvider Patch "/admin/v1/providers/{name}" Global(ProvidersWrite), "Change a provider", merges::<config::Provider>, gives::<Entry<config::Provider>>;
    DeleteProvider Delete "/admin/v1/providers/{name}" Global(ProvidersWrite), "Delete a provider that no model uses", versioned;
    TestProvider Post "/admin/v1/providers/{name}/test" Global(ProvidersTest), "Test the connection to a provider", gives::<ConnectionTest>;
    GetProviderState Get "/admin/v1/providers/{name}/state" Global(HealthRead), "See what is set of a provider in effect: whether it is drained", gives::<ProviderStateInfo>, versioned;
    PutProviderState Put "/admin/v1/providers/{name}/state" Global(ProvidersWrite), "Drain a provider in effect, take it into maintenance, or put it back", takes::<ProviderStateSettings>, gives::<ProviderStateInfo>, versioned;
    GetProviderHealth Get "/admin/v1/providers/{name}/health" Global(HealthRead), "See how a provider in effect and its models are", gives::<ProviderHealth>;
    ListProviderHealthHistory Get "/admin/v1/providers/{name}/health/history" Global(HealthRead), "List looks at a provider's health, and what has changed about it", asks::<HealthHistoryFilter>, pages::<HealthEntry>;
    ResetProvider Post "/admin/v1/providers/{name}/reset" Global(ProvidersWrite), "Forget what speaks against a provider in effect: it gets requests again at once";
    GetProviderConnections Get "/admin/v1/providers/{name}/connections" Global(ProvidersRead), "See which requests are open at a provider, and how its limits stand", gives::<ProviderConnections>;
    ListModels Get "/admin/v1/models" Global(ModelsRead), "List the draft's models", pages::<Entry<config::Model>>;
    GetModel Get "/admin/v1/models/{name}" Global(ModelsRead), "See a model", gives::<Entry<config::Model>>, versioned;
    PutModel Put "/admin/v1/models/{name}" Global(ModelsWrite), "Create or replace a model", takes::<config::Model>, gives::<Entry<config::Model>>, versioned;
    UpdateModel Patch "/admin/v1/models/{name}" Global(ModelsWrite), "Change a model", merges::<config::Model>, gives::<Entry<config::Model>>;
    DeleteModel Delete "/admin/v1/models/{name}" Global(ModelsWrite), "Delete a model that no route or price uses", versioned;
    ListRoutes Get "/admin/v1/routes" Global(RoutesRead), "List the draft's routes", pages::<Entry<config::Route>>;
    GetRoute Get "/admin/v1/routes/{name}" Global(RoutesRead), "See a route", gives::<Entry<config::Route>>, versioned;
    PutRoute Put "/admin/v1/routes/{name}" Global(RoutesWrite), "Create or replace a route", takes::<config::Route>, gives::<Entry<config::Route>>, versioned;
    UpdateRoute Patch "/admin/v1/routes/{name}" Global(RoutesWrite), "Change a route", merges::<config::Route>, gives::<Entry<config::Route>>;
    DeleteRoute Delete "/admin/v1/routes/{name}" Global(RoutesWrite), "Delete a route", versioned;
    ListPrices Get "/admin/v1/prices" Global(PricesRead), "List the draft's prices", pages::<Entry<config::Price>>;
    GetPrice Get "/admin/v1/prices/{name}" Global(PricesRead), "See a model's price", gives::<Entry<config::Price>>, versioned;
    PutPrice Put "/admin/v1/prices/{name}" Global(PricesWrite), "Set a model's price", takes::<config::Price>, gives::<Entry<config::Price>>, versioned;
    UpdatePrice Patch "/admin/v1/prices/{name}" Global(PricesWrite), "Change a model's price", merges::<config::Price>, gives::<Entry<config::Price>>;
    DeletePrice Delete "/admin/v1/prices/{name}" Global(PricesWrite), "Delete a model's price", versioned;
    ListUnpricedModels Get "/admin/v1/unpriced-models" Global(PricesRead), "List models that have no price, or were used without one lately", gives::<UnpricedModels>;
    GetSettings Get "/admin/v1/settings" Global(ConfigRead), "See the draft's other settings", gives::<Settings>, versioned;
    PutSettings Put "/admin/v1/settings" Global(ConfigWrite), "Replace the draft's other settings", takes::<Settings>, gives::<Settings>, versioned;
    UpdateSettings Patch "/admin/v1/settings" Global(ConfigWrite), "Change some of the draft's other settings", merges::<Settings>, gives::<Settings>;

    // === The configuration as a whole ===
    GetDraft Get "/admin/v1/config/draft" Global(ConfigRead), "See the draft as one document", gives::<Draft>, versioned;
    PutDraft Put "/admin/v1/config/draft" Global(ConfigWrite), "Replace the draft as a whole", takes::<DraftReplacement>, gives::<Draft>, versioned;
    ValidateConfig Post "/admin/v1/config/validate" Global(ConfigRead), "Tell everything that is wrong with the draft or a document", takes::<DocumentChoice>, gives::<Validation>;
    CompareConfig Post "/admin/v1/config/diff" Global(ConfigRead), "Compare the draft or a document with the current version", takes::<DocumentChoice>, gives::<Comparison>;
    SimulateConfig Post "/admin/v1/config/simulate" Global(ConfigRead), "Try sample requests on the draft or a document, without sending them", takes::<Simulation>, gives::<SimulationResult>;
    Simulate Post "/admin/v1/simulate" Global(ConfigRead), "Tell what would become of a request now, by the configuration in effect and the health of providers, without sending it", takes::<SampleRequest>, gives::<SimulatedNow>;
    PublishConfig Post "/admin/v1/config/publish" Global(ConfigPublish), "Make the draft the current configuration", takes::<Publish>, creates::<VersionInfo>;
    RollBackConfig Post "/admin/v1/config/rollback" Global(ConfigPublish), "Make an old version current again", takes::<Rollback>, creates::<VersionInfo>;
    ListVersions Get "/admin/v1/config/versions" Global(ConfigRead), "List published versions", pages::<VersionInfo>;
    GetVersion Get "/admin/v1/config/versions/{version}" Global(ConfigRead), "See a published version; `current` is the current one", gives::<Version>;
    CompareVersions Get "/admin/v1/config/versions/{version}/diff" Global(ConfigRead), "Compare two published versions", asks::<ComparisonQuery>, gives::<Comparison>;
    GetEffectiveConfig Get "/admin/v1/config/effective" Global(ConfigRead), "See the configuration in effect, and where each setting comes from", gives::<EffectiveConfig>;
    GetConfigSchema Get "/admin/v1/config/schema" Global(ConfigRead), "See the JSON Schema of a configuration", gives::<serde_json::Value>;

    // === What happened ===
    GetCache Get "/admin/v1/cache" Global(CacheRead), "See what isolates remember, and for how long", gives::<CacheState>;
    PurgeCache Post "/admin/v1/cache/purge" Global(CachePurge), "Make isolates forget what they remember", takes::<PurgeReason>, gives::<CacheState>;
    GetUsage Get "/admin/v1/usage" Global(UsageRead), "Sum up usage and cost", asks::<UsageQuery>, gives::<UsageReport>;
    ExportUsage Get "/admin/v1/usage.csv" Global(UsageRead), "Sum up usage and cost, as CSV", asks::<UsageQuery>, csv;
    GetAccountUsage Get "/admin/v1/accounts/{account}/usage" In(UsageRead), "Sum up an account's usage and cost", asks::<UsageQuery>, gives::<UsageReport>;
    ExportAccountUsage Get "/admin/v1/accounts/{account}/usage.csv" In(UsageRead), "Sum up an account's usage and cost, as CSV", asks::<UsageQuery>, csv;
    SearchRecords Get "/admin/v1/requests" Global(RecordsRead), "Search request records", asks::<RecordFilter>, pages::<RequestEntry>;
    SearchAccountRecords Get "/admin/v1/accounts/{account}/requests" In(RecordsRead), "Search an account's request records", asks::<RecordFilter>, pages::<RequestEntry>;
    GetAccountRecord Get "/admin/v1/accounts/{account}/requests/{request}" In(RecordsRead), "See a request's record", gives::<RequestEntry>;
    ListAlertRules Get "/admin/v1/alerts/rules" Global(AlertsRead), "List alert rules", asks::<AlertRuleFilter>, pages::<AlertRule>;
    CreateAlertRule Post "/admin/v1/alerts/rules" Global(AlertsWrite), "Create an alert rule", takes::<AlertRuleSettings>, creates::<AlertRule>, versioned;
    GetAlertRule Get "/admin/v1/alerts/rules/{rule}" Global(AlertsRead), "See an alert rule", gives::<AlertRule>, versioned;
    UpdateAlertRule Patch "/admin/v1/alerts/rules/{rule}" Global(AlertsWrite), "Change an alert rule", merges::<AlertRuleSettings>, gives::<AlertRule>;
    DeleteAlertRule Delete "/admin/v1/alerts/rules/{rule}" Global(AlertsWrite), "Delete an alert rule", versioned;
    ListAlertEvents Get "/admin/v1/alerts/events" Global(AlertsRead), "List what alert rules and limits raised", asks::<AlertEventFilter>, pages::<AlertEvent>;
    ListAccountAlertEvents Get "/admin/v1/accounts/{account}/alerts/events" In(AlertsRead), "List what alert rules and limits raised about an account", asks::<AlertEventFilter>, pages::<AlertEvent>;
    GetHealth Get "/admin/v1/health" Global(HealthRead), "See the state of the gateway's parts", gives::<SystemHealth>;
    ListHealthHistory Get "/admin/v1/health/history" Global(HealthRead), "List looks at providers' health", asks::<HealthFilter>, pages::<HealthEntry>;
    SearchAudit Get "/admin/v1/audit" Global(AuditRead), "Search the audit log", asks::<AuditFilter>, pages::<AuditEntry>;
    SearchAccountAudit Get "/admin/v1/accounts/{account}/audit" In(AuditRead), "Search what concerns an account in the audit log", asks::<AuditFilter>, pages::<AuditEntry>;
    VerifyAudit Get "/admin/v1/audit/verify" Global(AuditRead), "Check that the audit log is as it was written", asks::<VerifyQuery>, gives::<Verification>;
    GetOpenApi Get "/admin/openapi.json" Public, "See this API's description", gives::<serde_json::Value>;
}
