//! EK, AK and SRK on a real swtpm, with tss-esapi and tpm2-tools as oracles.

#![allow(clippy::unwrap_used)] // helpers of tests may fail like tests

mod common;

use common::swtpm::Swtpm;
use halfkey_agent::tpm::{Error, Hierarchy, Persistent, Tpm};
use halfkey_protocol::tpm::template;
use tss_esapi::interface_types::resource_handles::Hierarchy as OracleHierarchy;
use tss_esapi::structures::Public;
use tss_esapi::traits::{Marshall, UnMarshall};
use zeroize::Zeroizing;

/// The oracle makes a primary from the same template: same public area, same name.
fn oracle_primary(swtpm: &Swtpm, hierarchy: OracleHierarchy, template: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let mut oracle = swtpm.oracle();
    let template = Public::unmarshall(template).unwrap();
    oracle
        .execute_with_nullauth_session(|oracle| {
            let key = oracle.create_primary(hierarchy, template, None, None, None, None)?;
            let (public, name, _) = oracle.read_public(key.key_handle)?;
            oracle.flush_context(key.key_handle.into())?;
            Ok::<_, tss_esapi::Error>((public.marshall()?, name.value().to_vec()))
        })
        .unwrap()
}

#[test]
fn ak_and_srk_are_the_oracles() {
    let swtpm = Swtpm::start();
    let mut tpm = swtpm.open();
    let ak = tpm.attestation_key().unwrap();
    let srk = tpm.storage_key(None).unwrap();
    let found = [(ak.public.clone(), ak.name.clone()), (srk.public.clone(), srk.name.clone())];
    drop(tpm);
    let ak = oracle_primary(&swtpm, OracleHierarchy::Endorsement, &template::AK.template());
    let srk = oracle_primary(&swtpm, OracleHierarchy::Owner, &template::SRK.template());
    assert_eq!(found, [ak, srk]);
}

#[test]
fn keys_survive_a_reboot_and_differ_between_machines() {
    let mut swtpm = Swtpm::start();
    let names = |swtpm: &Swtpm| {
        let mut tpm = swtpm.open();
        let ek = tpm.endorsement_key().unwrap().object.name.clone();
        [ek, tpm.attestation_key().unwrap().name, tpm.storage_key(None).unwrap().name]
    };
    let first = names(&swtpm);
    swtpm.reboot();
    assert_eq!(names(&swtpm), first);
    let second = names(&Swtpm::start());
    for (a, b) in first.iter().zip(&second) {
        assert_ne!(a, b);
    }
}

#[test]
fn the_certified_p384_key_is_preferred_and_fits_its_certificate() {
    let swtpm = Swtpm::start();
    let mut tpm = swtpm.open();
    let ek = tpm.endorsement_key().unwrap();
    assert_eq!(ek.object.handle, 0x8101_0016);
    assert!(ek.chain.is_empty());
    let certificate = ek.certificate.unwrap();
    let name = ek.object.name;
    drop(tpm);
    swtpm.tool("tpm2_nvread 0x1c00016 -o certificate");
    let told = std::fs::read(swtpm.path("certificate")).unwrap();
    assert!(told.starts_with(&certificate));
    // The same key when somebody has evicted it: recreated by template H-3.
    swtpm.tool("tpm2_evictcontrol -C o -c 0x81010016");
    let mut tpm = swtpm.open();
    let again = tpm.endorsement_key().unwrap();
    assert_eq!((again.object.handle >> 24, &again.object.name), (0x80, &name));
    assert_eq!(again.certificate, Some(certificate));
    tpm.flush(again.object).unwrap();
    assert_eq!(tpm.endorsement_key_named(&name).unwrap().object.name, name);
}

#[test]
fn the_rsa_key_of_an_earlier_enrollment_is_found_by_name() {
    let swtpm = Swtpm::start();
    let mut tpm = swtpm.open();
    let rsa = tpm.read_public(0x8101_0001).unwrap().unwrap();
    let ek = tpm.endorsement_key_named(&rsa.name).unwrap();
    assert_eq!(ek.object.name, rsa.name);
    assert!(ek.certificate.is_some());
    drop(tpm);
    // Recreated by template L-1, it is the same key.
    swtpm.tool("tpm2_evictcontrol -C o -c 0x81010001");
    let mut tpm = swtpm.open();
    let again = tpm.endorsement_key_named(&rsa.name).unwrap();
    assert_eq!((again.object.handle >> 24, &again.object.name), (0x80, &rsa.name));
    assert!(matches!(tpm.endorsement_key_named(&[0, 11, 7]), Err(Error::Unsuitable(_))));
}

#[test]
fn a_foreign_key_at_the_ek_handle_is_passed_over() {
    let swtpm = Swtpm::start();
    let expected = swtpm.open().endorsement_key().unwrap().object.name;
    swtpm.tool("tpm2_evictcontrol -C o -c 0x81010016");
    swtpm.tool("tpm2_createprimary -C o -G ecc384 -c foreign");
    swtpm.tool("tpm2_evictcontrol -C o -c foreign 0x81010016");
    swtpm.tool("tpm2_flushcontext -t");
    assert_eq!(swtpm.open().endorsement_key().unwrap().object.name, expected);
}

#[test]
fn without_certificates_a_persistent_ek_is_used_else_p256_is_made() {
    let swtpm = Swtpm::start();
    // The factory locked these indices for everybody but the platform.
    swtpm.tool("tpm2_nvundefine -C p 0x1c00002");
    swtpm.tool("tpm2_nvundefine -C p 0x1c00016");
    let mut tpm = swtpm.open();
    let ek = tpm.endorsement_key().unwrap();
    assert_eq!((ek.object.handle, ek.certificate), (0x8101_0016, None));
    drop(tpm);
    swtpm.tool("tpm2_evictcontrol -C o -c 0x81010016");
    swtpm.tool("tpm2_evictcontrol -C o -c 0x81010001");
    let mut tpm = swtpm.open();
    let ek = tpm.endorsement_key().unwrap();
    assert_eq!((ek.object.handle >> 24, &ek.object.public[..4]), (0x80, &[0, 0x23, 0, 0x0b][..]));
    let name = ek.object.name.clone();
    drop(tpm);
    // tpm2-tools makes it by template L-2 too.
    swtpm.tool("tpm2_createek -G ecc256 -c ek -u ek.pub");
    swtpm.tool("tpm2_flushcontext -t");
    let told = swtpm.told("tpm2_loadexternal -C n -u ek.pub -n name -c loaded");
    assert!(told.contains("name"));
    assert_eq!(std::fs::read(swtpm.path("name")).unwrap(), name);
}

#[test]
fn a_chain_in_nv_is_read_over_several_indices() {
    let swtpm = Swtpm::start();
    let certificate = |byte: u8| [&[0x30, 0x82, 3, 0][..], &[byte; 768]].concat();
    let all = [certificate(1), certificate(2)].concat();
    for (index, part) in ["0x1c00100", "0x1c00101"].iter().zip(all.chunks(1000)) {
        std::fs::write(swtpm.path("part"), part).unwrap();
        let attributes = "ownerread|ownerwrite|authread";
        swtpm.tool(&format!("tpm2_nvdefine -C o -s {} -a {attributes} {index}", part.len()));
        swtpm.tool(&format!("tpm2_nvwrite -C o -i part {index}"));
    }
    let ek = swtpm.open().endorsement_key().unwrap();
    assert_eq!(ek.chain, [certificate(1), certificate(2)]);
}

#[test]
fn unreadable_nv_is_as_good_as_none() {
    let swtpm = Swtpm::start();
    swtpm.tool("tpm2_nvdefine -C o -s 8 -a ownerread|ownerwrite|authread -p secret 0x1500001");
    std::fs::write(swtpm.path("data"), [5; 8]).unwrap();
    swtpm.tool("tpm2_nvwrite -C o -i data 0x1500001");
    swtpm.tool("tpm2_nvdefine -C o -s 8 -a ownerread|ownerwrite 0x1500002");
    swtpm.tool("tpm2_nvwrite -C o -i data 0x1500002");
    swtpm.tool("tpm2_nvdefine -C o -s 8 -a ownerread|ownerwrite 0x1500003");
    let mut tpm = swtpm.open();
    assert_eq!(tpm.nv_read(0x0150_0001).unwrap(), None); // a password
    assert_eq!(tpm.nv_read(0x0150_0002).unwrap(), Some(vec![5; 8])); // the owner's read
    assert_eq!(tpm.nv_read(0x0150_0003).unwrap(), None); // never written
    assert_eq!(tpm.nv_read(0x0150_0004).unwrap(), None);
}

#[test]
fn srk_at_its_handle_is_used_only_if_it_is_that_key() {
    let swtpm = Swtpm::start();
    let mut tpm = swtpm.open();
    let srk = tpm.storage_key(None).unwrap();
    let kept = tpm.persist(Persistent::Srk, &srk).unwrap();
    assert_eq!(kept.handle, 0x8100_0001);
    assert_eq!(tpm.persist(Persistent::Srk, &srk).unwrap().handle, kept.handle);
    tpm.flush(srk).unwrap();
    assert_eq!(tpm.storage_key(Some(&kept.name)).unwrap().handle, 0x8100_0001);
    assert!(matches!(tpm.storage_key(Some(&[0, 11, 1])), Err(Error::WrongSrk)));
    drop(tpm);
    // Another key there, as other software may have left.
    swtpm.tool("tpm2_evictcontrol -C o -c 0x81000001");
    swtpm.tool("tpm2_createprimary -C o -G rsa2048 -c other");
    swtpm.tool("tpm2_evictcontrol -C o -c other 0x81000001");
    swtpm.tool("tpm2_flushcontext -t");
    let mut tpm = swtpm.open();
    let srk = tpm.storage_key(Some(&kept.name)).unwrap();
    assert_eq!(srk.handle >> 24, 0x80);
    let error = tpm.persist(Persistent::Srk, &srk).map(drop).unwrap_err();
    assert!(matches!(error, Error::Occupied(0x8100_0001)));
    assert!(error.hint().unwrap().contains("tpm2_evictcontrol"));
}

#[test]
fn hierarchies_with_passwords_need_them_once() {
    let swtpm = Swtpm::start();
    let mut tpm = swtpm.open();
    let (ak, srk) = (tpm.attestation_key().unwrap().name, tpm.storage_key(None).unwrap().name);
    drop(tpm);
    swtpm.tool("tpm2_changeauth -c o ownerpass");
    swtpm.tool("tpm2_changeauth -c e endorsepass");
    let mut tpm = swtpm.open();
    let state = tpm.permanent().unwrap();
    assert!(state.owner_auth && state.endorsement_auth && !state.lockout_auth && !state.in_lockout);
    for error in [tpm.attestation_key().map(drop), tpm.storage_key(None).map(drop)] {
        let error = error.unwrap_err();
        assert!(matches!(error, Error::HierarchyAuth(_)), "{error}");
        assert!(error.hint().unwrap().contains("password"));
    }
    // Enrollment: the operator types the passwords.
    let password = |text: &str| Zeroizing::new(text.as_bytes().to_vec());
    tpm.set_hierarchy_auth(Hierarchy::Owner, password("ownerpass"));
    tpm.set_hierarchy_auth(Hierarchy::Endorsement, password("wrong"));
    assert!(matches!(tpm.attestation_key(), Err(Error::HierarchyAuth("endorsement"))));
    tpm.set_hierarchy_auth(Hierarchy::Endorsement, password("endorsepass\0"));
    let key = tpm.attestation_key().unwrap();
    tpm.persist(Persistent::Ak, &key).unwrap();
    let key = tpm.storage_key(None).unwrap();
    tpm.persist(Persistent::Srk, &key).unwrap();
    drop(tpm);
    // Boot: nobody types anything.
    let mut tpm = swtpm.open();
    assert_eq!(tpm.attestation_key().unwrap().name, ak);
    assert_eq!(tpm.storage_key(Some(&srk)).unwrap().name, srk);
}

#[test]
fn a_disabled_hierarchy_is_named() {
    let swtpm = Swtpm::start();
    swtpm.tool("tpm2_hierarchycontrol -C p shEnable clear");
    let mut tpm = swtpm.open();
    assert!(!tpm.permanent().unwrap().owner_enabled);
    let error = tpm.storage_key(None).map(drop).unwrap_err();
    assert!(matches!(error, Error::HierarchyDisabled("owner")), "{error}");
    assert_eq!(error.to_string(), "the TPM's owner hierarchy is disabled");
}

#[test]
fn a_unix_socket_will_do() {
    let mut swtpm = Swtpm::start();
    let name = swtpm.open().storage_key(None).unwrap().name;
    let location = swtpm.restart_on_unix_socket();
    let mut tpm = Tpm::open(&location).unwrap();
    assert_eq!(tpm.storage_key(None).unwrap().name, name);
}

#[test]
fn the_tpm_describes_itself() {
    let swtpm = Swtpm::start();
    let mut tpm = swtpm.open();
    let description = tpm.description().unwrap();
    assert_eq!(description.manufacturer, "IBM");
    assert!(description.vendor.contains("TPM"), "{}", description.vendor);
    let before = tpm.read_clock().unwrap();
    drop(tpm);
    let told = swtpm.told("tpm2_readclock");
    assert!(told.contains(&format!("reset_count: {}", before.reset_count)), "{told}");
}
