use proptest::prelude::*;

use super::*;

/// 2015-08-30T12:36:00Z, as Amazon's examples have it.
const NOW_MS: u64 = 1_440_938_160_000;

fn secret() -> Secret<String> {
    Secret::new("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".to_owned())
}

fn signer<'a>(secret: &'a Secret<String>, region: &'a str, service: &'a str) -> SigV4<'a> {
    SigV4 { access_key_id: "AKIDEXAMPLE", secret, session_token: None, region, service }
}

fn url(text: &str) -> Url {
    Url::parse(text).unwrap()
}

/// Amazon's published examples sign nothing but the host, the date, and what is given here.
fn published(service: &str, method: &str, text: &str, headers: &[(&str, &str)], body: &str) -> String {
    let (secret, url) = (secret(), url(text));
    let mut signed = BTreeMap::from([("host".to_owned(), host(&url))]);
    signed.insert("x-amz-date".to_owned(), timestamp(NOW_MS));
    signed.extend(headers.iter().map(|(name, value)| ((*name).to_owned(), one_spaced(value))));
    let payload_hash = hex(&Sha256::digest(body));
    let signer = signer(&secret, "us-east-1", service);
    let line = signer.authorization(method, &url, &signed, &payload_hash, &timestamp(NOW_MS));
    line.rsplit_once("Signature=").unwrap().1.to_owned()
}

fn value_of<'a>(headers: &'a [(&'static str, Secret<String>)], name: &str) -> Option<&'a str> {
    headers.iter().find(|(found, _)| *found == name).map(|(_, value)| value.expose().as_str())
}

#[test]
fn amazons_published_examples_come_out_as_published() {
    let at = "https://example.amazonaws.com/";
    assert_eq!(
        published("service", "GET", at, &[], ""),
        "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"
    );
    assert_eq!(
        published("service", "POST", at, &[], ""),
        "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"
    );
    assert_eq!(
        published("service", "GET", "https://example.amazonaws.com/?Param2=value2&Param1=value1", &[], ""),
        "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500"
    );
    let form = [("content-type", "application/x-www-form-urlencoded")];
    assert_eq!(
        published("service", "POST", at, &form, "Param1=value1"),
        "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a"
    );
    let form = [("content-type", "application/x-www-form-urlencoded; charset=utf-8")];
    let list_users = "https://iam.amazonaws.com/?Action=ListUsers&Version=2010-05-08";
    assert_eq!(
        published("iam", "GET", list_users, &form, ""),
        "5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7"
    );
}

#[test]
fn requests_are_signed_as_amazons_own_python_client_signs_them() {
    let json = [("Content-Type".to_owned(), " application/json ".to_owned()), ("accept".to_owned(), "*/*".to_owned())];
    let (secret, token) = (secret(), Secret::new("SESSION/TOKEN==".to_owned()));
    let model = "https://bedrock-runtime.us-east-1.amazonaws.com/model/us.anthropic.claude-3-5-sonnet-20241022-v2%3A0/\
                 converse-stream";
    let body = br#"{"messages":[]}"#;
    let plain = signer(&secret, "us-east-1", "bedrock");

    let headers = plain.headers("POST", &url(model), &json, body, NOW_MS);
    let names: Vec<_> = headers.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ["x-amz-content-sha256", "x-amz-date", "authorization"]);
    assert_eq!(value_of(&headers, "x-amz-date"), Some("20150830T123600Z"));
    assert_eq!(value_of(&headers, "x-amz-content-sha256"), Some(hex(&Sha256::digest(body)).as_str()));
    assert_eq!(
        value_of(&headers, "authorization"),
        Some(
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/bedrock/aws4_request, \
             SignedHeaders=content-type;host;x-amz-content-sha256;x-amz-date, \
             Signature=66539f18bc53a47cc0cd83849282ddc99e8acf8887b8b75d75562ca2bc8c751e"
        )
    );

    let temporary = SigV4 { session_token: Some(&token), ..plain };
    let headers = temporary.headers("POST", &url(model), &json, body, NOW_MS);
    assert_eq!(value_of(&headers, "x-amz-security-token"), Some("SESSION/TOKEN=="));
    assert_eq!(
        value_of(&headers, "authorization"),
        Some(
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/bedrock/aws4_request, \
             SignedHeaders=content-type;host;x-amz-content-sha256;x-amz-date;x-amz-security-token, \
             Signature=fef766bbf553bad513b6ca5cf4163a3caba6606f5fd60862323c4322c45ede2f"
        )
    );

    let arn = "https://bedrock-runtime.eu-west-1.amazonaws.com/model/\
               arn%3Aaws%3Abedrock%3Aeu-west-1%3A123456789012%3Ainference-profile%2Feu.model/converse";
    let headers = signer(&secret, "eu-west-1", "bedrock").headers("POST", &url(arn), &json, body, NOW_MS);
    assert!(
        value_of(&headers, "authorization")
            .unwrap()
            .ends_with("=d4d11614ba2bbef3cbc1d26992bf22ab14bfd2215304a723e0ebf5606cd63244")
    );

    // A port, a query out of order and with an encoded space, no content type.
    let listed = "https://vpce-1.example.com:8443/foundation-models?byProvider=anthropic&byOutputModality=TEXT&a=b%20c";
    let headers = plain.headers("GET", &url(listed), &[], b"", NOW_MS);
    assert!(
        value_of(&headers, "authorization")
            .unwrap()
            .ends_with("=e2c10d3f5edc340b21d4e9e78d12803c511ccb97df2dfe7090865e14f9bcc6a3")
    );
}

#[test]
fn paths_are_encoded_once_more_and_have_no_empty_segments() {
    let canonical = |text: &str| path(&url(&format!("https://h{text}")));
    assert_eq!(canonical(""), "/");
    assert_eq!(canonical("//"), "/");
    assert_eq!(canonical("/a%3Ab//c:d/~e/"), "/a%253Ab/c%3Ad/~e/");
}

#[test]
fn a_credential_is_a_secret_or_a_temporary_key_as_it_is_printed() {
    let read = |id: Option<&str>, text: &str| {
        let key = AccessKey::read(id, &Secret::new(text.to_owned()))?;
        let token = key.session_token.map(|token| token.expose().clone());
        Ok::<_, AuthFault>((key.id, key.secret.expose().clone(), token))
    };
    let owned = |id: &str, secret: &str, token: Option<&str>| Ok((id.into(), secret.into(), token.map(str::to_owned)));
    assert_eq!(read(Some("AK"), " s/+=\n"), owned("AK", "s/+=", None));
    let printed = r#"{"Credentials":{"AccessKeyId":"ASIA","SecretAccessKey":"s","SessionToken":"t","Expiration":"x"}}"#;
    for id in [None, Some("AK")] {
        assert_eq!(read(id, printed), owned("ASIA", "s", Some("t")));
    }
    assert_eq!(read(None, r#"{"AccessKeyId":"AKIA","SecretAccessKey":"s"}"#), owned("AKIA", "s", None));
    for (id, text) in
        [(None, "s3cret"), (None, r#"{"AccessKeyId":"a"}"#), (Some("AK"), r#"{"SecretAccessKey":"s3cret"}"#)]
    {
        let fault = read(id, text).unwrap_err();
        assert!(fault.is_about_the_credential() && !fault.to_string().contains("s3cret"), "{fault}");
    }
}

#[test]
fn nothing_of_the_secret_can_be_printed() {
    let secret = secret();
    let signer = SigV4 { session_token: Some(&secret), ..signer(&secret, "us-east-1", "bedrock") };
    let headers = signer.headers("GET", &url("https://h/"), &[], b"", NOW_MS);
    assert!(!format!("{signer:?}{headers:?}").contains("wJalr"));
}

proptest! {
    #[test]
    fn whatever_is_signed_counts(flip in 0..6usize, body in proptest::collection::vec(any::<u8>(), 1..40)) {
        let (secret, other) = (secret(), Secret::new("another".to_owned()));
        let signer = signer(&secret, "r", "s");
        let sign = |signer: SigV4<'_>, method: &str, text: &str, kind: &str, body: &[u8], now_ms: u64| {
            let headers = signer.headers(method, &url(text), &[("content-type".into(), kind.into())], body, now_ms);
            value_of(&headers, "authorization").unwrap().rsplit_once('=').unwrap().1.to_owned()
        };
        let usual = sign(signer, "POST", "https://h/a", "k", &body, NOW_MS);
        let changed = match flip {
            0 => sign(SigV4 { secret: &other, ..signer }, "POST", "https://h/a", "k", &body, NOW_MS),
            1 => sign(signer, "PUT", "https://h/a", "k", &body, NOW_MS),
            2 => sign(signer, "POST", "https://h/b", "k", &body, NOW_MS),
            3 => sign(signer, "POST", "https://h/a", "l", &body, NOW_MS),
            4 => sign(signer, "POST", "https://h/a", "k", &body[1..], NOW_MS),
            _ => sign(signer, "POST", "https://h/a", "k", &body, NOW_MS + 1_000),
        };
        prop_assert_ne!(usual, changed);
    }
}
