use super::*;

const READER: &str = "reader-reader-reader";
const WRITER: &str = "writer-writer-writer";
const BOTH: &str = "both-both-both-both-both";
const ADMIN: &str = "admin-admin-admin-admin";
const TEAM: &str = "team-team-team-team-team";

fn door(multi_tenant: bool, locked: bool) -> Door {
    let text = format!(
        "[reader]\ntoken = '{READER}'\nread = true\n[writer]\ntoken = '{WRITER}'\nwrite = true\n\
         [both]\ntoken = '{BOTH}'\nread = true\nwrite = true\n[admin]\ntoken = '{ADMIN}'\nadmin = true\n"
    );
    let bound = format!("[team]\ntoken = '{TEAM}'\nread = ['a', 'b']\nwrite = ['a']\n");
    let text = if multi_tenant { text + &bound } else { text };
    let tokens = locked.then(|| (Tokens::parse(&text, multi_tenant).unwrap(), None));
    Door { multi_tenant, origins: Vec::new(), tokens }
}

fn headers(token: Option<&str>, tenants: Option<&str>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if let Some(token) = token {
        headers.insert(header::AUTHORIZATION, format!("Bearer {token}").parse().unwrap());
    }
    if let Some(tenants) = tenants {
        headers.insert(TENANT_HEADER, tenants.parse().unwrap());
    }
    headers
}

fn readable(access: &Access) -> Vec<&str> {
    access.readable.iter().map(TenantId::as_str).collect()
}

#[test]
fn one_tenant_ignores_the_header() {
    let door = door(false, false);
    for tenants in [None, Some(""), Some("a"), Some("a|b"), Some("not/valid")] {
        let access = door.admit(Class::Query, &headers(None, tenants)).unwrap();
        assert_eq!(readable(&access), ["anonymous"]);
        assert_eq!(access.writable().unwrap(), &TenantId::anonymous());
    }
}

#[test]
fn several_tenants_have_to_be_named() {
    let door = door(true, false);
    let admit = |class, tenants| door.admit(class, &headers(None, tenants));
    for class in [Class::Query, Class::Ingest] {
        for tenants in [None, Some("")] {
            let refusal = admit(class, tenants).unwrap_err();
            assert_eq!(refusal.error.code, ErrorCode::Unauthenticated);
            assert!(!refusal.challenge, "no token would help");
        }
        for tenants in ["a/b", "a||b", "|", "..", "a b"] {
            let refusal = admit(class, Some(tenants)).unwrap_err();
            assert_eq!(refusal.error.code, ErrorCode::InvalidArgument, "{tenants}");
        }
    }
    let access = admit(Class::Query, Some("b|a|b")).unwrap();
    assert_eq!(readable(&access), ["a", "b"]);
    assert_eq!(access.writable().unwrap_err().code, ErrorCode::InvalidArgument);
    assert_eq!(access.single().unwrap_err().code, ErrorCode::InvalidArgument);
    assert_eq!(admit(Class::Ingest, Some("a|b")).unwrap_err().error.code, ErrorCode::InvalidArgument);
    let access = admit(Class::Ingest, Some("a|a")).unwrap();
    assert_eq!(access.writable().unwrap().as_str(), "a");
    assert_eq!(access.single().unwrap().as_str(), "a");
    let many = (0..=MAX_TENANTS).map(|n| n.to_string()).collect::<Vec<_>>().join("|");
    assert!(admit(Class::Query, Some(&many)).is_err());
    for class in [Class::Status, Class::Metrics, Class::Ready] {
        assert!(admit(class, None).is_ok(), "{class:?}");
    }
    let mut twice = headers(None, Some("a"));
    twice.append(TENANT_HEADER, HeaderValue::from_static("b"));
    assert!(door.admit(Class::Query, &twice).is_err());
}

#[test]
fn rights_are_needed_for_what_they_are_for() {
    let door = door(false, true);
    let ok = |class, token| match door.admit(class, &headers(token, None)) {
        Ok(_) => None,
        Err(refusal) => Some((refusal.error.code, refusal.challenge)),
    };
    let denied = Some((ErrorCode::PermissionDenied, false));
    let unknown = Some((ErrorCode::Unauthenticated, true));
    for (class, wanted) in [
        // Without a token, with an unknown one, reader, writer, both, admin.
        (Class::Query, [unknown, unknown, None, denied, None, None]),
        (Class::Ingest, [unknown, unknown, denied, None, None, None]),
        (Class::Admin, [unknown, unknown, denied, denied, denied, None]),
        (Class::Status, [unknown, unknown, None, None, None, None]),
        (Class::Metrics, [unknown, unknown, None, denied, None, None]),
        (Class::Ready, [None; 6]),
    ] {
        let tokens =
            [None, Some("nobody-nobody-nobody"), Some(READER), Some(WRITER), Some(BOTH), Some(ADMIN)];
        for (token, wanted) in tokens.into_iter().zip(wanted) {
            assert_eq!(ok(class, token), wanted, "{class:?} {token:?}");
        }
    }
    let access = door.admit(Class::Ingest, &headers(Some(WRITER), None)).unwrap();
    assert!(access.readable().is_empty(), "who may only write reads nothing, whatever the route");
    let access = door.admit(Class::Query, &headers(Some(READER), None)).unwrap();
    let error = access.writable().unwrap_err();
    assert_eq!(
        error.message.as_deref(),
        Some("the token \"reader\" lacks the right write for tenant \"anonymous\"")
    );
}

#[test]
fn nobody_administers_a_server_without_tokens() {
    let refusal = door(false, false).admit(Class::Admin, &headers(None, None)).unwrap_err();
    assert_eq!(refusal.error.code, ErrorCode::PermissionDenied);
    let access = door(true, true).admit(Class::Admin, &headers(Some(ADMIN), Some("z"))).unwrap();
    assert_eq!(access.administered().unwrap().as_str(), "z");
    assert!(door(true, true).admit(Class::Admin, &headers(Some(ADMIN), None)).is_err(), "whose is not said");
}

#[test]
fn a_bound_token_decides_the_tenant_and_cannot_leave_it() {
    let door = door(true, true);
    let admit = |class, token, tenants| door.admit(class, &headers(Some(token), tenants));
    let access = admit(Class::Query, TEAM, None).unwrap();
    assert_eq!(readable(&access), ["a", "b"]);
    assert_eq!(access.writable().unwrap().as_str(), "a");
    assert_eq!(readable(&admit(Class::Query, TEAM, Some("b")).unwrap()), ["b"]);
    for (class, tenants) in [(Class::Query, "a|c"), (Class::Query, "c"), (Class::Ingest, "b")] {
        let error = admit(class, TEAM, Some(tenants)).unwrap_err().error;
        assert_eq!(error.code, ErrorCode::PermissionDenied);
    }
    assert_eq!(admit(Class::Metrics, TEAM, None).unwrap_err().error.code, ErrorCode::PermissionDenied);
    assert!(admit(Class::Status, TEAM, None).is_ok());
    // A token for all tenants does not say which one is meant.
    assert_eq!(admit(Class::Query, READER, None).unwrap_err().error.code, ErrorCode::Unauthenticated);
    assert_eq!(readable(&admit(Class::Query, ADMIN, Some("z")).unwrap()), ["z"]);
}
