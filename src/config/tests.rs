use std::time::Duration;

use super::*;
use crate::routes::{Destination, Rewrite};

const SHIPPED: &str = include_str!("../../config/gateway.toml");

fn load(text: &str, environment: &[(&str, &str)]) -> Result<Config, String> {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("gateway.toml");
    std::fs::write(&file, text).expect("a file");
    let environment = environment.iter().map(|(name, value)| (name.to_string(), value.to_string()));
    let faults = Config::load(Some(&file), environment, &Overrides::default());
    faults.map_err(|faults| faults.to_string().replace(&file.display().to_string(), "gateway.toml"))
}

fn load_environment(environment: &[(&str, &str)]) -> Result<Config, String> {
    let environment = environment.iter().map(|(name, value)| (name.to_string(), value.to_string()));
    Config::load(None, environment, &Overrides::default()).map_err(|faults| faults.to_string())
}

/// The shipped file with its commented examples made real.
fn shipped_with_examples() -> String {
    let real = |line: &str| match line.strip_prefix('#') {
        Some(rest) if rest.starts_with('[') || rest.starts_with(|c: char| c.is_ascii_lowercase()) => rest.to_owned(),
        _ => line.to_owned(),
    };
    SHIPPED.lines().map(real).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_shipped_file_equals_the_defaults() {
    assert_eq!(load(SHIPPED, &[]), Ok(Config::default()));
    assert_eq!(load("", &[]), Ok(Config::default()));
    assert_eq!(load_environment(&[]), Ok(Config::default()));
}

#[test]
fn the_shipped_file_has_every_setting_and_its_examples_are_good() {
    let text = shipped_with_examples();
    let table = DeTable::parse(&text).expect("TOML").into_inner();
    let mut reader = Reader::new("gateway.toml", &text, std::iter::empty());
    let config = Config::read(&table, None, &Overrides::default(), &mut reader);
    // Of a list of sections, each setting is somewhere in it.
    let anywhere = |path: &str| (0..4).any(|index| reader.is_given(&path.replacen("[0]", &format!("[{index}]"), 1)));
    let mut missing: Vec<&str> = reader.known().iter().map(String::as_str).collect();
    missing.retain(|path| !path.contains('[') || path.contains("[0]"));
    missing.retain(|path| !anywhere(path));
    // The lists are known by their members.
    assert_eq!(missing, ["repositories", "plans", "claims", "upstreams", "routes"]);
    assert_eq!(reader.finish(), Ok(()));
    assert!(
        config.server.behind_proxy.is_some() && config.tls.certificate.is_some() && config.access.contact.is_some()
    );
}

#[test]
fn command_line_goes_over_environment_over_file_over_default() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("gateway.toml");
    std::fs::write(&file, "data_dir = 'a'\n[server]\nlisten = '127.0.0.1:1'\nadmin_listen = '127.0.0.1:2'").unwrap();
    let environment = || {
        [("KEYBEARER__DATA_DIR", "b"), ("KEYBEARER__SERVER__LISTEN", "127.0.0.1:3"), ("HOME", "/root")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into_iter()
    };
    let overrides = Overrides { data_dir: Some("c".into()), ..Overrides::default() };
    let config = Config::load(Some(&file), environment(), &overrides).expect("no fault");
    assert_eq!(config.data_dir, Path::new("c"));
    assert_eq!(config.server.listen, "127.0.0.1:3".parse().unwrap());
    assert_eq!(config.server.admin_listen, "127.0.0.1:2".parse().unwrap());
    assert_eq!(config.tokens, crate::tokens::Settings::default());

    let overrides = Overrides { listen: Some("127.0.0.1:2".parse().unwrap()), ..Overrides::default() };
    let faults = Config::load(Some(&file), environment(), &overrides).expect_err("two listeners on one port");
    let fault = &faults.list()[0];
    assert_eq!((fault.path.as_str(), fault.origin.is_some(), faults.list().len()), ("server.admin_listen", true, 1));
}

#[test]
fn the_environment_sets_every_kind_of_value() {
    let config = load_environment(&[
        ("KEYBEARER__TOKENS__LIFETIME", "15m"),
        ("KEYBEARER__TOKENS__MAX_LIVE", "5_000"),
        ("KEYBEARER__LIMITS__HEADER_BYTES", "8KiB"),
        ("KEYBEARER__LIMITS__BODY_BYTES", "2048"),
        ("KEYBEARER__DEMO__ENABLED", "false"),
        ("KEYBEARER__TLS__NAMES", "gateway.example.com, 192.0.2.1"),
        ("KEYBEARER__SERVER__BEHIND_PROXY__LISTEN", "127.0.0.1:8080"),
        ("KEYBEARER__SERVER__BEHIND_PROXY__TRUSTED", "10.0.0.0/8,fd00::/8"),
        ("KEYBEARER__CREDENTIALS__FAILURES_PER_USER", "5/h"),
        ("KEYBEARER__ACCESS__CONTACT", "sales@example.com"),
        ("KEYBEARER_SERVICE_PORT", "a container platform's, not ours"),
    ])
    .expect("no fault");
    assert_eq!(config.tokens.lifetime, Duration::from_secs(900));
    assert_eq!(config.tokens.max_live, 5000);
    assert_eq!((config.limits.header_bytes, config.limits.body_bytes), (8192, 2048));
    assert!(!config.demo.enabled);
    assert_eq!(config.tls.names, ["gateway.example.com", "192.0.2.1"]);
    assert_eq!(config.server.behind_proxy.expect("a listener").trusted.len(), 2);
    assert_eq!(config.credentials.failures_per_user, "5/h".parse().unwrap());
    assert_eq!(config.access.contact.as_deref(), Some("sales@example.com"));
}

#[test]
fn every_fault_is_reported_at_once_in_the_order_of_the_file() {
    let text = r#"
store = "sqllite"
lifetime = "1h"

[server]
listen = "localhost:8443"

[server.behind_proxy]
trusted = ["10.0.0.0/8", "0.0.0.0/0"]

[limits]
header_bytes = "2KiB"
idle_timeout = 60
write_timeout = "0s"

[tls]
certificate = "tls.pem"

[tokens]
issuer = "http://gateway.example.com"
lifetme = "15m"
leeway = "6m"

[credentials]
argon2_memory_kib = 4
failures_per_user = "10 per minute"

[singing]
rsa_bits = 1024
"#;
    let environment = [
        ("KEYBEARER__SIGNING__RSA_BITS", "1024"),
        ("KEYBEARER__DEMO__TOKEN_LIFETIME", ""),
        ("KEYBEARER__TOKENS__LIVETIME", "1h"),
        ("KEYBEARER__LOGGING", "debug"),
        ("KEYBEARER__ROUTES__0__PATH", "/a"),
        ("KEYBEARER__tokens__leeway", "1s"),
    ];
    assert_eq!(load(text, &environment).expect_err("faults"), EXPECTED.trim());
}

const EXPECTED: &str = r#"
the configuration has 21 faults:
store: "sqllite" is not known here (gateway.toml:2); did you mean "sqlite"?
lifetime: unknown setting (gateway.toml:3); did you mean "lifetime" in [tokens]?
server.listen: "localhost:8443" is not an address to listen on (gateway.toml:6); write an IP address, ':' and a port (IPv6 in brackets), as in listen = "127.0.0.1:8443"
server.behind_proxy.listen: is not given (gateway.toml:8); write the address to listen on, as in listen = "127.0.0.1:8080"
server.behind_proxy.trusted[1]: "0.0.0.0/0" trusts every address there is (gateway.toml:9); anyone could claim to have come by HTTPS from any address: write the load balancer's own networks, as in trusted = ["10.0.0.0/8"]
limits.header_bytes: "2KiB" is too small (gateway.toml:12); write 4KiB to 1MiB, as in header_bytes = "32KiB"
limits.idle_timeout: 60 is not a duration (gateway.toml:13); write a whole number and ms, s, m, h or d, as in idle_timeout = "60s"
limits.write_timeout: "0s" is too short (gateway.toml:14); write 100ms to 1h, as in write_timeout = "30s"
tls.certificate: is given without tls.private_key (gateway.toml:17); give tls.private_key as well, or neither
tokens.issuer: "http://gateway.example.com" is not an https URL (gateway.toml:20); write an https URL without query or fragment (RFC 8414 §2), as in issuer = "https://gateway.example.com"
tokens.lifetme: unknown setting (gateway.toml:21); did you mean "lifetime"?
tokens.leeway: "6m" is too long (gateway.toml:22); write 0s to 5m, as in leeway = "30s"
credentials.argon2_memory_kib: argon2 parameters are out of bounds: memory cost is too small (gateway.toml:25); the defaults are argon2_memory_kib = 19456, argon2_iterations = 2, argon2_parallelism = 1
credentials.failures_per_user: "10 per minute" is not a rate (gateway.toml:26); a rate is a whole number from 1 to 1000000000, '/', and s, m, h or d, as in "20/s"
singing: unknown section (gateway.toml:28); did you mean "signing"?
demo.token_lifetime: "" is not a duration (KEYBEARER__DEMO__TOKEN_LIFETIME); write a whole number and ms, s, m, h or d, as in KEYBEARER__DEMO__TOKEN_LIFETIME=24h
logging: is a section, not a setting (KEYBEARER__LOGGING); name a setting in it, as in KEYBEARER__LOGGING__FORMAT
routes.0.path: routes cannot be set from the environment (KEYBEARER__ROUTES__0__PATH); write [[routes]] in a configuration file
signing.rsa_bits: "1024" is not possible here (KEYBEARER__SIGNING__RSA_BITS); write 2048, 3072 or 4096, as in KEYBEARER__SIGNING__RSA_BITS=2048
tokens.livetime: unknown setting (KEYBEARER__TOKENS__LIVETIME); did you mean KEYBEARER__TOKENS__LIFETIME?
tokens.leeway: unknown setting (KEYBEARER__tokens__leeway); did you mean KEYBEARER__TOKENS__LEEWAY?
"#;

#[test]
fn routes_are_checked_one_by_one_and_against_one_another() {
    let text = r#"
[[routes]]
id = "orders"
path = "/orders/*"
methods = ["GET"]
groups = ["Orders", "gold"]
resource = "echo"

[[routes]]
id = "orders"
path = "/orders/special"
methods = ["get", "POST", "POST"]
groups = []
resource = "ehco"

[[routes]]
id = "writing"
path = "/orders/*"
methods = ["PUT"]
groups = []
resource = "time"
group = ["gold"]

[[routes]]
path = "/demo/more"

[[routes]]
id = "all"
path = "/*"
groups = []
resource = "whoami"
"#;
    assert_eq!(load(text, &[]).expect_err("faults"), EXPECTED_ROUTES.trim());
}

const EXPECTED_ROUTES: &str = r#"
the configuration has 10 faults:
routes[0].groups[0]: "Orders" is not a group (gateway.toml:6); a group is 1 to 64 of a-z, 0-9, '-', '_' and '.', beginning with a letter or digit, as in groups = ["orders"]
routes[1].id: "orders" is the id of routes[0] too (gateway.toml:10); give each route an id of its own
routes[1].methods[0]: "get" is not a method that a route can have (gateway.toml:12); did you mean "GET"?
routes[1].methods: "POST" is in it twice (gateway.toml:12); write it once
routes[1].resource: "ehco" is not known here (gateway.toml:14); did you mean "echo"?
routes[2].group: unknown setting (gateway.toml:22); did you mean "groups"?
routes[3].id: is not given (gateway.toml:24); give it a name, as in id = "orders"
routes[3].groups: is not given (gateway.toml:24); write the groups that may call it, or groups = [] for any valid token but the public demo one
routes[3].resource: is not given (gateway.toml:24); write what answers: upstream = "…" of an [[upstreams]], resource = "echo", "time" or "whoami", or forward_auth = true where another proxy answers
routes[3].path: "/demo/more" is within "/demo/*", which the gateway answers itself (gateway.toml:25); choose another path: no request would come here
"#;

#[test]
fn upstreams_and_the_routes_that_lead_to_them_are_checked_together() {
    let text = r#"
[[upstreams]]
id = "orders"
targets = ["http://127.0.0.1:9000", "http://127.0.0.1:9000"]
host = "a b"
[upstreams.tls]
certificate = "client.pem"
[upstreams.health]
interval = "1ms"

[[upstreams]]
id = "orders"
targets = []
protocol = "http3"

[[routes]]
id = "a"
hosts = ["api.example.com", "API.example.com", "https://x"]
path = "/a/{x}/*"
groups = ["g"]
upstream = "order"
strip_prefix = "/a/b"
replace_path = "/x"

[[routes]]
id = "b"
path = "/b"
groups = ["g"]
resource = "echo"
upstream = "orders"

[[routes]]
id = "c"
hosts = []
path = "/a/{y}/*"
groups = ["g"]
forward_auth = true
pass_credentials = true

[[routes]]
id = "d"
path = "/a/{z}/*"
groups_match = "both"
groups = ["g"]
forward_auth = false
"#;
    assert_eq!(load(text, &[]).expect_err("faults"), EXPECTED_UPSTREAMS.trim());
}

const EXPECTED_UPSTREAMS: &str = r#"
the configuration has 20 faults:
upstreams[0].targets: "http://127.0.0.1:9000" is in it twice (gateway.toml:4); write it once
upstreams[0].host: "a b" is not a host (gateway.toml:5); write "client", "target" or a host name, as in host = "client"
upstreams[0].tls: has no meaning: no target begins with https (gateway.toml:6); remove it, or write the targets with https
upstreams[0].tls.certificate: is given without private_key (gateway.toml:7); give both, or neither
upstreams[0].health.path: is not given (gateway.toml:8); write what is asked for, as in path = "/healthz"
upstreams[0].health.interval: "1ms" is too short (gateway.toml:9); write 100ms to 1h, as in interval = "10s"
upstreams[1].id: "orders" is the id of upstreams[0] too (gateway.toml:12); give each upstream an id of its own
upstreams[1].targets: is empty (gateway.toml:13); write where it is, as in targets = ["http://127.0.0.1:9000"]
upstreams[1].protocol: "http3" is not known here (gateway.toml:14); did you mean "http1"?
routes[0].hosts[2]: "https://x" is not a host (gateway.toml:18); write a name or an address without scheme and port; "*.example.com" is every host below it, as in hosts = ["api.example.com", "*.example.com"]
routes[0].hosts: "api.example.com" is in it twice (gateway.toml:18); write it once
routes[0].upstream: there is no upstream "order" (gateway.toml:21); did you mean "orders"?
routes[0].strip_prefix: is given beside replace_path (gateway.toml:22); replace_path is the whole path: remove one of them
routes[0].strip_prefix: "/a/b" is not what every path of "/a/{x}/*" begins with (gateway.toml:22); write "/a", or a part of it that ends before a '/'
routes[1].upstream: is given beside resource (gateway.toml:30); a route has one that answers: remove the other
routes[2].hosts: is empty (gateway.toml:34); write the hosts, or leave it out for every host
routes[2].pass_credentials: has no meaning without an upstream (gateway.toml:38); remove it, or write upstream = "…"
routes[3].path: "/a/{z}/*" is the path of routes[2] too, for the same hosts and methods (gateway.toml:42); a request must have one route: change a path, or give each its own hosts or methods
routes[3].groups_match: "both" is not known here (gateway.toml:43); write "any" or "all", as in groups_match = "any"
routes[3].forward_auth: is false (gateway.toml:45); write true, or leave it out and write what answers
"#;

#[test]
fn routes_may_share_a_path_when_hosts_or_methods_tell_them_apart() {
    let text = r#"
[[upstreams]]
id = "orders"
targets = ["http://127.0.0.1:9000"]

[[routes]]
id = "everything"
path = "/*"
groups = ["g"]
upstream = "orders"

[[routes]]
id = "one-host"
hosts = ["api.example.com"]
path = "/*"
groups = ["g"]
upstream = "orders"
strip_prefix = "/"
add_prefix = "/v1"

[[routes]]
id = "reading"
path = "/a/*"
methods = ["GET"]
groups = ["g", "h"]
groups_match = "all"
resource = "echo"

[[routes]]
id = "writing"
path = "/a/*"
methods = ["POST"]
groups = ["g"]
forward_auth = true
"#;
    let config = load(text, &[]).expect("no fault");
    assert_eq!(config.upstreams.len(), 1);
    let Destination::Upstream(forwarding) = &config.routes[1].destination else { panic!("an upstream") };
    assert_eq!(forwarding.rewrite, Rewrite::Strip { prefix: "".into(), add: "/v1".into() });
    assert!(forwarding.identity_headers && !forwarding.pass_credentials && config.routes[2].all_groups);
    assert_eq!(config.routes[3].destination, Destination::External);
    let problem = load_environment(&[("KEYBEARER__UPSTREAMS__0__ID", "a")]).unwrap_err();
    assert!(problem.contains("write [[upstreams]] in a configuration file"), "{problem}");
}

#[test]
fn claims_are_namespaced_small_and_said_once() {
    use crate::tokens::{ClaimValue, Holder};
    let text = r#"
[tokens]
audience = ["https://a.example", "https://b.example"]
[[claims]]
group = "orders"
name = "https://example.com/tier"
value = "gold"
[[claims]]
account = "acme"
name = "example.com/tenant"
value = -7
[[claims]]
account = "acme"
name = "urn:x:beta"
value = true
"#;
    let tokens = load(text, &[]).expect("no fault").tokens;
    assert_eq!(tokens.audience, ["https://a.example", "https://b.example"]);
    assert_eq!(tokens.claims.len(), 3);
    assert_eq!(tokens.claims[0].holder, Holder::Group("orders".parse().unwrap()));
    assert_eq!(
        (&tokens.claims[1].value, &tokens.claims[2].value),
        (&ClaimValue::Integer(-7), &ClaimValue::Boolean(true))
    );
    for (text, expected) in [("a,b", vec!["a", "b"]), ("a", vec!["a"])] {
        assert_eq!(load("", &[("KEYBEARER__TOKENS__AUDIENCE", text)]).expect("no fault").tokens.audience, expected);
        let over = load("[tokens]\naudience = 'x'", &[("KEYBEARER__TOKENS__AUDIENCE", text)]).expect("no fault");
        assert_eq!(over.tokens.audience, expected);
    }

    let text = r#"
[tokens]
audience = []
[[claims]]
name = "tier"
value = 1.5
[[claims]]
group = "orders"
account = "acme"
name = "scope"
[[claims]]
group = "orders"
name = "a.b"
value = 9007199254740992
[[claims]]
group = "orders"
name = "a.b"
value = "x"
"#;
    assert_eq!(load(text, &[]).expect_err("faults"), EXPECTED_CLAIMS.trim());
    let long =
        |account: &str| format!("[[claims]]\naccount = '{account}'\nname = 'a.b'\nvalue = '{}'\n", "x".repeat(1500));
    assert!(load(&(long("a") + &long("b")), &[]).is_ok(), "no token is of two accounts");
    let text = long("a") + &long("b").replace("account", "group").replace("a.b", "c.d");
    let problem = load(&text, &[]).unwrap_err();
    assert!(problem.contains("claims: take up to 3018 bytes of one token"), "{problem}");
}

const EXPECTED_CLAIMS: &str = r#"
the configuration has 9 faults:
tokens.audience: is empty (gateway.toml:3); write whom the tokens are for, as in audience = "https://api.example.com"
claims[0].group: is not given (gateway.toml:4); write whose tokens say it: group = "…" or account = "…"
claims[0].name: "tier" has no namespace (gateway.toml:5); write a name of your own, a URI or a name with a domain in it (RFC 7519 §4.2), as in name = "https://example.com/tier"
claims[0].value: 1.5 is not what a claim can say (gateway.toml:6); write text in quotes, a whole number of less than 2^53, true or false, as in value = "gold"
claims[1].value: is not given (gateway.toml:7); write what it says, as in value = "gold"
claims[1].group: is given beside account (gateway.toml:8); a claim has one holder: remove the other
claims[1].name: "scope" is said by every token itself (gateway.toml:10); write a name of your own, a URI or a name with a domain in it (RFC 7519 §4.2), as in name = "https://example.com/tier"
claims[2].value: 9007199254740992 is not what a claim can say (gateway.toml:14); write text in quotes, a whole number of less than 2^53, true or false, as in value = "gold"
claims[3].name: is the claim of claims[2] too, for the same holder (gateway.toml:17); write it once
"#;

#[test]
fn the_schedule_of_signing_keys_leaves_time_between_two() {
    let signing = |text: &str| load(&format!("[signing]\n{text}"), &[]).map(|config| config.signing);
    for off in ["rotate_every = 0", "rotate_every = '0'", "rotate_every = '0s'"] {
        assert!(!signing(off).expect("no fault").is_scheduled(), "{off}");
    }
    assert!(signing("rotate_every = '24h'").unwrap_err().contains("signing.rotate_every: leaves no time between"));
    assert!(signing("publish_ahead = '30d'").unwrap_err().contains("signing.publish_ahead: leaves no time between"));
    assert!(
        signing("publish_ahead = '59m'")
            .unwrap_err()
            .contains("\"59m\" is too short (gateway.toml:2); write 1h to 30d")
    );
    assert!(signing("rotate_every = '1h'").unwrap_err().contains("write 2h to 3650d, or 0 for never"));
    assert!(signing("algorithm = 'HS256'").unwrap_err().contains("an algorithm is RS256, ES256 or EdDSA"));
}

#[test]
fn routes_in_the_file_replace_the_default_ones() {
    assert_eq!(load("routes = []", &[]).expect("no fault").routes, []);
    let text = "[[routes]]\nid = 'a'\npath = '/a'\nmethods = ['GET', 'POST']\ngroups = ['g']\nresource = 'time'";
    let routes = load(text, &[]).expect("no fault").routes;
    assert_eq!((routes.len(), routes[0].path.to_string(), routes[0].methods.len()), (1, "/a".into(), 2));
    let problem = load("[routes]\nid = 'a'", &[]).unwrap_err();
    assert!(problem.contains("write [[routes]], in double brackets"), "{problem}");
}

#[test]
fn a_syntax_error_is_shown_with_its_line_and_the_environment_is_checked_all_the_same() {
    let environment = [("KEYBEARER__TOKENS__LIFETIME", "soon"), ("KEYBEARER__TLS__CERTIFICATE", "a.pem")];
    let problem = load("store = \"memory\"\n[tokens]\nlifetime = 15m\n", &environment).unwrap_err();
    assert_eq!(problem, EXPECTED_SYNTAX.trim());
}

const EXPECTED_SYNTAX: &str = r#"
the configuration has 2 faults:
gateway.toml:3:12: string values must be quoted, expected literal string; correct the TOML there
  3 | lifetime = 15m
    |            ^
tokens.lifetime: "soon" is not a duration (KEYBEARER__TOKENS__LIFETIME); write a whole number and ms, s, m, h or d, as in KEYBEARER__TOKENS__LIFETIME=1h
"#;

#[test]
fn a_file_that_cannot_be_read_is_a_fault() {
    let missing = Config::load(Some(Path::new("no/such.toml")), std::iter::empty(), &Overrides::default()).unwrap_err();
    assert_eq!(
        missing.to_string(),
        "the configuration has 1 fault:\nno/such.toml: cannot be read: No such file or directory (os error 2); \
         correct --config, or leave it out to use the built-in defaults"
    );
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("latin1.toml");
    std::fs::write(&file, b"# \xe4\n").unwrap();
    let latin = Config::load(Some(&file), std::iter::empty(), &Overrides::default()).unwrap_err();
    assert!(latin.to_string().contains("is not UTF-8 text"), "{latin}");
}

proptest::proptest! {
    #![proptest_config(proptest::test_runner::Config::with_cases(64))]
    #[test]
    fn no_file_and_no_variable_makes_it_panic(
        key in "[a-z_.\\[\\]]{0,12}", value in ".{0,20}", line in "(routes|server|tokens\\.lifetime|\\[\\[routes\\]\\]|\\[tls\\]) ?=? ?.{0,12}",
    ) {
        let _ = load(&line, &[(&format!("KEYBEARER__{}", key.to_uppercase()), &value)]);
        let _ = load(&format!("{key} = {value}"), &[]);
    }
}

#[test]
fn a_registry_and_its_rules_are_checked_together() {
    let text = r#"
[tokens]
audience = ["https://api.example.com", "registry.example.com"]

[signing]
algorithm = "EdDSA"

[image_registry]
service = "registry.example.com"
catalog_groups = ["Office"]

[[repositories]]
match = "team/app*"
groups = ["orders"]
actions = ["pull", "pusch"]

[[repositories]]
groups = []
actions = []
action = ["pull"]

[[repositories]]
match = ""
"#;
    assert_eq!(load(text, &[]).expect_err("faults"), EXPECTED_REPOSITORIES.trim());
    let text = "signing.algorithm = 'ES256'\n[image_registry]\nkey_id = 'x5c'\ncatalog_groups = []";
    assert_eq!(load(text, &[]).expect_err("faults"), EXPECTED_REGISTRY.trim());
    let text = "[image_registry]\nservice = 'x'\n[[repositories]]\nmatch = '**'\ngroups = ['orders', 'demo']\nactions = ['pull', 'delete']";
    let said = load(text, &[]).expect_err("a fault");
    assert!(said.contains("repositories[0].actions: would let anyone delete by the published demo key"), "{said}");
    let text = text.replace(", 'delete'", "");
    assert!(load(&text, &[]).is_ok(), "anyone may pull");
    let text = "[[repositories]]\nmatch = 'a'\ngroups = []\nactions = ['pull']";
    let said = load(text, &[]).expect_err("a fault");
    let expected =
        "repositories: are given without a registry; write [image_registry] with the service that they are in";
    assert!(said.contains(expected), "{said}");
}

const EXPECTED_REPOSITORIES: &str = r#"
the configuration has 11 faults:
signing.algorithm: "EdDSA" does not go with image_registry.key_id = "libtrust" (gateway.toml:6); sign with RS256 or ES256
image_registry.service: "registry.example.com" is in tokens.audience too (gateway.toml:9); choose another name, the same in the registry's own settings
image_registry.catalog_groups[0]: "Office" is not a group (gateway.toml:10); a group is 1 to 64 of a-z, 0-9, '-', '_' and '.', beginning with a letter or digit, as in catalog_groups = ["operations"]
repositories[0].match: "team/app*" is not a pattern of repositories (gateway.toml:13); write the repository's name; '*' or {account} may stand for one whole part of it, and '**' for all that follows, as in match = "team/**"
repositories[0].actions[1]: "pusch" is not an action (gateway.toml:15); did you mean "push"?
repositories[1].match: is not given (gateway.toml:17); write which repositories it is about, as in match = "team/**"
repositories[1].actions: is empty (gateway.toml:19); write what may be done, or remove the rule: what no rule allows is denied
repositories[1].action: unknown setting (gateway.toml:20); did you mean "actions"?
repositories[2].groups: is not given (gateway.toml:22); write the groups that it is for, or groups = [] for any credential but the public demo one
repositories[2].actions: is not given (gateway.toml:22); write what may be done, as in actions = ["pull", "push"]
repositories[2].match: "" is not a pattern of repositories (gateway.toml:23); write the repository's name; '*' or {account} may stand for one whole part of it, and '**' for all that follows, as in match = "team/**"
"#;

const EXPECTED_REGISTRY: &str = r#"
the configuration has 2 faults:
image_registry.service: is not given (gateway.toml:2); write what the registry calls its service, as in service = "registry.example.com"
image_registry.key_id: "x5c" does not go with signing.algorithm = "ES256" (gateway.toml:3); sign with RS256, or write key_id = "libtrust"
"#;

/// A token for the registry may live longer than all others.
#[test]
fn a_signing_key_is_kept_for_the_registrys_tokens_too() {
    let text = "tokens.lifetime = '1s'\ndemo.enabled = false\n";
    assert_eq!(load(text, &[]).unwrap().longest_token(), Duration::from_secs(1));
    let text = format!("{text}[image_registry]\nservice = 'x'");
    assert_eq!(load(&text, &[]).unwrap().longest_token(), crate::repositories::LIFETIME);
}

#[test]
fn plans_are_read_and_every_fault_is_told() {
    let text = "[quotas]\ntime_zone = '+02:00'\nlegacy_fields = true\n[demo]\nplan = 'a'\n\
                [[plans]]\nid = 'a'\nrequests_per_second = 5\nburst = 9\nconcurrent = 3\n\
                [[plans]]\nid = 'b'\nbytes_per_month = 1000\n\
                [[routes]]\nid = 'r'\npath = '/r'\ngroups = []\nresource = 'echo'\nplan = 'b'";
    let config = load(text, &[("KEYBEARER__QUOTAS__FLUSH_EVERY", "5s")]).expect("no fault");
    let limits: Vec<Vec<String>> =
        config.plans.iter().map(|plan| plan.limits.iter().map(ToString::to_string).collect()).collect();
    assert_eq!(limits, [vec!["5 requests a second, 9 at once", "3 requests at once"], vec!["1000 bytes a month"]]);
    assert_eq!((config.quotas.calendar.to_string(), config.quotas.legacy_fields), ("+02:00".to_owned(), true));
    assert_eq!(config.quotas.flush_every, Duration::from_secs(5));
    assert_eq!(config.routes[0].plan, Some("b".parse().unwrap()));

    let said = load(
        "[quotas]\ntime_zone = 'Europe/Berlin'\n[demo]\nplan = 'basics'\n\
         [[plans]]\nid = 'basic'\nburst = 3\n[[plans]]\nid = 'basic'\nrequests_per_day = 0\n\
         [[plans]]\nid = 'licence-x'\nrequests_per_dya = 1\nconcurrent = 1\n\
         [[routes]]\nid = 'r'\npath = '/r'\ngroups = []\nresource = 'echo'\nplan = 'other'",
        &[],
    )
    .unwrap_err();
    for fault in [
        "quotas.time_zone: \"Europe/Berlin\" is not a time zone",
        "demo.plan: there is no plan \"basics\" (gateway.toml:4); did you mean \"basic\"?",
        "plans[0].requests_per_month: is not given, nor any other limit",
        "plans[0].burst: has no meaning without requests_per_second",
        "plans[1].id: \"basic\" is the id of plans[0] too",
        "plans[1].requests_per_day: 0 is out of range",
        "plans[2].id: \"licence-x\" is what the quotas of a licence's document are called",
        "plans[2].requests_per_dya: unknown setting",
        "routes[0].plan: there is no plan \"other\"",
    ] {
        assert!(said.contains(fault), "{fault} in:\n{said}");
    }
}
