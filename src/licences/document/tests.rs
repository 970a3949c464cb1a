//! What is signed is believed as it is; what differs from it in anything is not.

use proptest::prelude::*;

use super::*;
use crate::licences::VendorKey;

fn document() -> Document {
    Document {
        id: TokenId::random(),
        vendor: "Widgets Ltd".into(),
        licence: LicenceId::random(),
        issued_at: Timestamp::from_secs(1_800_000_000),
        starts_at: Timestamp::from_secs(1_800_000_000),
        ends_at: Some(Timestamp::from_secs(1_900_000_000)),
        account: "acme".parse().expect("a name"),
        groups: ["orders", "reports"].map(|id| id.parse().expect("a group")).into(),
        plan: "gold".into(),
        seats: Some(20),
        quotas: [("requests_per_month".to_owned(), 100_000)].into(),
    }
}

/// Signs a header and claims of any kind, as a vendor with other software might.
fn sign(key: &VendorKey, header: &str, claims: &str) -> String {
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(key.sign(signed.as_bytes())))
}

#[test]
fn what_was_signed_is_read_as_it_was() {
    let (ours, other) = (VendorKey::generate().expect("a key"), VendorKey::generate().expect("a key"));
    let full = document();
    let bare = Document { ends_at: None, seats: None, quotas: BTreeMap::new(), ..document() };
    for document in [full, bare] {
        let text = armour(&document.sign(&ours).expect("a document"));
        assert!(text.lines().all(|line| line.len() <= WIDTH) && text.is_ascii());
        for text in [text.clone(), text.replace('\n', "\r\n"), text.trim_end().to_owned()] {
            let compact = unarmour(&text).expect("a document");
            assert_eq!(Document::verify(&compact, &[other.public(), ours.public()]), Ok(document.clone()));
        }
        let compact = unarmour(&text).expect("a document");
        let refused = DocumentError::UnknownKey(ours.public().id());
        assert_eq!(Document::verify(&compact, &[other.public()]), Err(refused.clone()));
        assert_eq!(Document::verify(&compact, &[]), Err(refused));
        assert_eq!(Document::unproven(&compact), Ok((document, ours.public().id())));
    }
}

#[test]
fn only_one_form_is_accepted() {
    let key = VendorKey::generate().expect("a key");
    let (id, trusted) = (key.public().id(), [key.public()]);
    let good_header = format!(r#"{{"alg":"EdDSA","typ":"keybearer-licence+jwt","kid":"{id}"}}"#);
    let good = document().sign(&key).expect("a document");
    let claims = good.split('.').nth(1).and_then(|part| URL_SAFE_NO_PAD.decode(part).ok()).expect("claims");
    let good_claims = String::from_utf8(claims).expect("JSON");
    assert!(Document::verify(&sign(&key, &good_header, &good_claims), &trusted).is_ok());

    for (from, to) in [
        ("EdDSA", "none"),
        ("EdDSA", "HS256"),
        ("EdDSA", "ES256"),
        ("EdDSA", "eddsa"),
        ("keybearer-licence+jwt", "at+jwt"),
        (r#","kid""#, r#","crit":["x"],"x":1,"kid""#),
        (r#","kid""#, r#","jwk":{},"kid""#),
        (r#","kid""#, r#","kid":"a","kid""#),
        (r#","typ":"keybearer-licence+jwt""#, ""),
    ] {
        let header = good_header.replacen(from, to, 1);
        assert_ne!(header, good_header);
        assert_eq!(
            Document::verify(&sign(&key, &header, &good_claims), &trusted),
            Err(DocumentError::Header),
            "{header}"
        );
    }
    for (from, to) in [
        (r#","plan""#, r#","nodes":1,"plan""#),
        (r#","plan""#, r#","plan":"x","plan""#),
        (r#""nbf":1800000000"#, r#""nbf":"1800000000""#),
        (r#""nbf":1800000000"#, r#""nbf":-1"#),
        (r#""nbf":1800000000"#, r#""nbf":18446744073709551615"#),
        (r#""nbf":1800000000"#, r#""nbf":1900000000"#),
        (r#""iat":1800000000,"#, ""),
        (r#""account":"acme""#, r#""account":"demo""#),
        (r#""account":"acme""#, r#""account":"a b""#),
        (r#"["orders","reports"]"#, "[]"),
        (r#"["orders","reports"]"#, r#"["orders","demo"]"#),
        (r#""seats":20"#, r#""seats":4294967296"#),
        (r#""plan":"gold""#, r#""plan":" ""#),
        (r#""plan":"gold""#, r#""plan":"a\nb""#),
        ("requests_per_month", "Requests"),
        (r#""requests_per_month":100000"#, r#""requests_per_month":1,"requests_per_month":100000"#),
    ] {
        let claims = good_claims.replacen(from, to, 1);
        assert_ne!(claims, good_claims, "{from}");
        let refused = Document::verify(&sign(&key, &good_header, &claims), &trusted);
        assert!(matches!(refused, Err(DocumentError::Claims(_))), "{claims}: {refused:?}");
    }

    for bad in ["", ".", "..", "a.b", "a.b.c", &format!("{good}."), &format!("{good}="), &format!(" {good}")] {
        let refused = Document::verify(bad, &trusted).expect_err(bad);
        assert!(matches!(refused, DocumentError::Form | DocumentError::Header), "{bad}: {refused:?}");
    }
    // 64 bytes of signature leave four bits over in the last character.
    let last = good.chars().last().expect("a character");
    for c in ('A'..='Z').chain('a'..='z').chain('0'..='9').chain(['-', '_']).filter(|c| *c != last) {
        let other = format!("{}{c}", &good[..good.len() - 1]);
        assert!(Document::verify(&other, &trusted).is_err(), "{c}");
    }
    assert_eq!(Document::verify(&"a".repeat(MOST_BYTES + 1), &trusted), Err(DocumentError::TooLong));
    assert_eq!(unarmour(&"a".repeat(2 * MOST_BYTES + 1)), Err(DocumentError::TooLong));
    let quotas = (0..1000).map(|number| (format!("quota_{number}"), number)).collect();
    assert_eq!(Document { quotas, ..document() }.sign(&key), Err(DocumentError::TooLong));
}

#[test]
fn nothing_stands_around_the_armour_and_lines_are_as_they_were_written() {
    let key = VendorKey::generate().expect("a key");
    let text = armour(&document().sign(&key).expect("a document"));
    for bad in [
        format!("Dear customer,\n{text}"),
        format!("{text}Yours"),
        format!("{text}\n\n"),
        text.replacen('\n', "\n\n", 1),
        text.replace('\n', " \n"),
        text.replace('\n', ""),
        text.replace("LICENCE", "LICENSE"),
        text.replace('\n', "\r"),
        format!("\u{feff}{text}"),
        String::new(),
    ] {
        assert_eq!(unarmour(&bad), Err(DocumentError::Form), "{bad:?}");
    }
}

/// The document in bytes that may have been altered, if it is believed.
fn believed(bytes: &[u8], key: &VendorPublicKey) -> Option<Document> {
    let compact = unarmour(std::str::from_utf8(bytes).ok()?).ok()?;
    Document::verify(&compact, std::slice::from_ref(key)).ok()
}

#[test]
fn no_single_bit_can_be_flipped() {
    let key = VendorKey::generate().expect("a key");
    let text = armour(&document().sign(&key).expect("a document")).into_bytes();
    assert!(believed(&text, &key.public()).is_some());
    for at in 0..text.len() {
        for bit in 0..8 {
            let mut altered = text.clone();
            altered[at] ^= 1 << bit;
            assert_eq!(believed(&altered, &key.public()), None, "bit {bit} of byte {at}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]
    #[test]
    fn no_character_can_be_another_or_go_or_come(at in any::<prop::sample::Index>(), c in any::<char>(), kind in 0..3u8) {
        let key = VendorKey::generate().expect("a key");
        let text = armour(&document().sign(&key).expect("a document"));
        let mut characters: Vec<char> = text.chars().collect();
        let at = at.index(characters.len());
        match kind {
            0 => characters[at] = c,
            1 => { characters.remove(at); }
            _ => characters.insert(at, c),
        }
        let altered: String = characters.into_iter().collect();
        // Line ends may be another system's, and the last may be missing.
        let same = |text: &str| text.replace("\r\n", "\n").trim_end_matches('\n').to_owned();
        prop_assume!(same(&altered) != same(&text));
        prop_assert_eq!(believed(altered.as_bytes(), &key.public()), None);
    }
}
