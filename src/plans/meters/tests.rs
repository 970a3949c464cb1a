//! Whose counts are whose.

use proptest::prelude::*;

use super::*;

fn any_address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![any::<[u8; 4]>().prop_map(IpAddr::from), any::<[u16; 8]>().prop_map(IpAddr::from)]
}

fn any_subject() -> impl Strategy<Value = Subject> {
    let id = "[0-9A-Za-z]{12}";
    let route = || "[a-z0-9._-]{1,64}".prop_map(|id| id.parse::<RouteId>().unwrap());
    prop_oneof![
        id.prop_map(|id| Subject::Licence(id.parse().unwrap())),
        id.prop_map(|id| Subject::Key(id.parse().unwrap())),
        (route(), "[0-9A-Za-z][0-9A-Za-z._@+-]{0,40}")
            .prop_map(|(route, account)| Subject::Route(route, account.parse().unwrap())),
        any_address().prop_map(Subject::Address),
        (route(), any_address()).prop_map(|(route, address)| Subject::RouteAddress(route, address)),
    ]
}

proptest! {
    #[test]
    fn a_subject_is_read_as_it_was_written(subject in any_subject()) {
        prop_assert_eq!(subject.to_string().parse(), Ok(subject));
    }
}

/// Rows are kept for longer than a gateway lives: what was written is read by every later one.
#[test]
fn a_subject_is_written_so() {
    let route: RouteId = "orders".parse().unwrap();
    let (v4, v6): (IpAddr, IpAddr) = ("192.0.2.1".parse().unwrap(), "2001:db8::".parse().unwrap());
    for (text, subject) in [
        ("licence:0123456789ab", Subject::Licence("0123456789ab".parse().unwrap())),
        ("key:0123456789ab", Subject::Key("0123456789ab".parse().unwrap())),
        ("route:orders:acme", Subject::Route(route.clone(), "acme".parse().unwrap())),
        // An account may have such a name.
        ("route:orders:192.0.2.1", Subject::Route(route.clone(), "192.0.2.1".parse().unwrap())),
        ("address:2001:db8::", Subject::Address(v6)),
        ("route-address:orders:192.0.2.1", Subject::RouteAddress(route.clone(), v4)),
        ("route-address:orders:2001:db8::", Subject::RouteAddress(route, v6)),
    ] {
        assert_eq!(subject.to_string(), text);
        assert_eq!(text.parse(), Ok(subject));
    }
    for bad in ["", "acme", "route:orders", "route:orders:2001:db8::", "route-address:orders:acme", "address:acme"] {
        assert_eq!(bad.parse::<Subject>(), Err(InvalidSubject), "{bad}");
    }
}
