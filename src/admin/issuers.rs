//! Issuers whose tokens open the admin API grant roles: whoever publishes one makes administrators.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::config::{Issuer, Plane, RoleGrant};

/// The roles that a configuration would grant to the callers of issuers that are new in it, or not what they were: with
/// another key, audience or claim an issuer vouches for other callers. Documents that say nothing of issuers have none.
pub fn newly_granted(before: &Value, after: &Value) -> BTreeSet<RoleGrant> {
    let known = listed(before);
    listed(after)
        .iter()
        .filter(|issuer| !known.contains(issuer))
        .filter_map(|issuer| serde_json::from_value::<Issuer>(issuer.clone()).ok())
        .filter(|issuer| issuer.planes.contains(&Plane::Admin))
        .flat_map(|issuer| issuer.roles.into_values().flatten())
        .collect()
}

fn listed(document: &Value) -> &[Value] {
    document.pointer("/auth/issuers").and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn document(change: impl Fn(&mut Value)) -> Value {
        let mut issuer = json!({
            "issuer": "https://id.example", "audiences": ["gateway"], "algorithms": ["ES256"],
            "jwks_uri": "https://id.example/jwks", "planes": ["models", "admin"], "roles_claim": "groups",
            "roles": {"ops": [{"role": "operator"}], "dev": [{"role": "developer", "account": "a"}]},
        });
        change(&mut issuer);
        json!({"auth": {"issuers": [issuer]}})
    }

    fn roles(before: &Value, after: &Value) -> Vec<String> {
        newly_granted(before, after).into_iter().map(|grant| grant.role).collect()
    }

    #[test]
    fn an_issuer_that_is_new_or_changed_grants_its_roles() {
        let as_it_is = document(|_| {});
        assert_eq!(roles(&json!({}), &as_it_is), ["developer", "operator"]);
        let another_key = document(|issuer| issuer["jwks_uri"] = json!("https://elsewhere.example/jwks"));
        assert_eq!(roles(&as_it_is, &another_key), ["developer", "operator"]);
        let more = document(|issuer| issuer["roles"]["ops"][0]["role"] = json!("owner"));
        assert_eq!(roles(&as_it_is, &more), ["developer", "owner"]);
    }

    #[test]
    fn what_is_as_it_was_or_opens_nothing_here_grants_nothing() {
        let as_it_is = document(|_| {});
        assert!(roles(&as_it_is, &as_it_is).is_empty() && roles(&as_it_is, &json!({})).is_empty());
        assert!(roles(&json!({}), &document(|issuer| issuer["planes"] = json!(["models"]))).is_empty());
        assert!(roles(&json!({}), &document(|issuer| issuer["roles"] = json!({}))).is_empty());
    }
}
