//! Where the images of pods come from, and who may have which.

use super::bed::play;
use super::*;
use crate::image::InUse;

#[test]
fn an_image_that_is_here_is_not_pulled_unless_asked_for() {
    play(|bed| async move {
        *lock(&bed.workshop.present) = true;
        bed.apply(samples::pod(&json!({})));
        bed.running(1).await;
        assert_eq!(*lock(&bed.workshop.pulls), 0);
        assert!(bed.events().contains(
            &"spec.containers{c} Pulled: Container image \"i:1\" already present on machine".to_owned()
        ));
        let mut always =
            samples::pod(&json!({"containers": [{"name": "c", "image": "i", "imagePullPolicy": "Always"}]}));
        "v".clone_into(&mut always.metadata.uid);
        bed.apply(always);
        bed.until("the pull", |bed| *lock(&bed.workshop.pulls) == 1).await;
    });
}

#[test]
fn an_image_that_must_not_be_pulled_is_waited_for() {
    play(|bed| async move {
        bed.apply(samples::pod(
            &json!({"containers": [{"name": "c", "image": "i:1", "imagePullPolicy": "Never"}]}),
        ));
        bed.until("the reason", |bed| bed.waiting() == "ErrImageNeverPull").await;
        *lock(&bed.workshop.present) = true;
        bed.clock.advance(10);
        bed.running(1).await;
    });
}

#[test]
fn a_failing_pull_backs_off() {
    play(|bed| async move {
        lock(&bed.workshop.pull_errors).push_back("no such host".to_owned());
        bed.apply(samples::pod(&json!({})));
        bed.until("the error", |bed| bed.waiting() == "ErrImagePull").await;
        bed.clock.advance(3);
        bed.until("the back-off", |bed| bed.waiting() == "ImagePullBackOff").await;
        bed.clock.advance(7);
        bed.running(1).await;
        assert_eq!(*lock(&bed.workshop.pulls), 2);
    });
}

#[test]
fn a_pull_secret_that_is_missing_is_only_a_warning() {
    play(|bed| async move {
        let mut secret = Secret::default();
        secret.data.insert(".dockerconfigjson".to_owned(), ByteString(b"{}".to_vec()));
        lock(&bed.api.secrets).insert("there".to_owned(), secret);
        bed.apply(samples::pod(&json!({"imagePullSecrets": [{"name": "there"}, {"name": "gone"}]})));
        bed.running(1).await;
        let expected =
            "FailedToRetrieveImagePullSecret: Unable to retrieve some image pull secrets (gone); attempting \
            to pull the image may not succeed.";
        assert_eq!(bed.events()[0], expected);
    });
}

/// A secret with one login.
fn login() -> Secret {
    let mut secret = Secret::default();
    let json = br#"{"auths":{"docker.io":{"username":"u","password":"p"}}}"#;
    secret.data.insert(".dockerconfigjson".to_owned(), ByteString(json.to_vec()));
    secret
}

#[test]
fn a_private_image_that_is_here_is_only_for_a_pod_with_its_login() {
    play(|bed| async move {
        (*lock(&bed.workshop.present), *lock(&bed.workshop.private)) = (true, true);
        lock(&bed.api.secrets).insert("login".to_owned(), login());
        let never = json!({"containers": [{"name": "c", "image": "i:1", "imagePullPolicy": "Never"}]});
        bed.apply(samples::pod(&never));
        bed.until("the reason", |bed| bed.waiting() == "ErrImageNeverPull").await;
        let mut asking = samples::pod(&json!({}));
        "v".clone_into(&mut asking.metadata.uid);
        bed.apply(asking);
        bed.until("the registry's word", |bed| *lock(&bed.workshop.pulls) == 1).await;
        let mut holding = samples::pod(&never);
        "w".clone_into(&mut holding.metadata.uid);
        holding.spec.image_pull_secrets = vec![serde_json::from_value(json!({"name": "login"})).unwrap()];
        bed.apply(holding);
        bed.until("a run", |bed| lock(&bed.workshop.runs).iter().any(|(spec, _)| spec.pod.uid == "w")).await;
        assert_eq!(*lock(&bed.workshop.pulls), 1);
    });
}

#[test]
fn a_public_image_that_is_here_needs_no_secret_and_no_api_server() {
    play(|bed| async move {
        *lock(&bed.workshop.present) = true;
        bed.apply(samples::pod(&json!({"imagePullSecrets": [{"name": "login"}]})));
        bed.running(1).await;
        assert!(lock(&bed.api.asked).is_empty());
    });
}

#[test]
fn while_pull_secrets_cannot_be_had_what_they_last_held_counts() {
    play(|bed| async move {
        lock(&bed.api.secrets).insert("login".to_owned(), login());
        *lock(&bed.api.away) = true;
        bed.apply(samples::pod(&json!({"imagePullSecrets": [{"name": "login"}],
            "containers": [{"name": "c", "image": "i:1", "imagePullPolicy": "Always"}]})));
        bed.until("the error", |bed| bed.waiting() == "ErrImagePull").await;
        assert_eq!(*lock(&bed.workshop.pulls), 0, "nothing is pulled without the secret");
        *lock(&bed.api.away) = false;
        bed.pass(3).await;
        bed.until("the back-off", |bed| bed.waiting() == "ImagePullBackOff").await;
        bed.clock.advance(7);
        let run = bed.running(1).await;
        *lock(&bed.api.away) = true;
        run.end(Exit::Code(1));
        bed.running(2).await;
        assert_eq!(lock(&bed.workshop.keyrings).clone(), ["Keyring(1 entries)"; 2]);
    });
}

#[test]
fn images_of_all_pods_are_in_use_once_it_is_known_which_there_are() {
    play(|bed| async move {
        let users = bed.supervisor.image_users();
        assert_eq!(users(), None);
        bed.apply(samples::pod(&json!({
            "initContainers": [{"name": "i", "image": "first:1"}],
            "containers": [{"name": "c", "image": "i:1"}, {"name": "d", "image": "Not A Name"}],
            "volumes": [{"name": "v", "image": {"reference": "r.io/data:2"}}],
        })));
        assert_eq!(users(), None, "there may be others");
        let pod = bed.supervisor.pods();
        bed.supervisor.handle(PodEvent::Set(pod));
        let mut expected = InUse::default();
        for name in ["docker.io/library/first:1", "i:1", "r.io/data:2"] {
            expected.name(&name.parse().unwrap());
        }
        assert_eq!(users(), Some(expected));
        bed.supervisor.handle(PodEvent::Set(Vec::new()));
        bed.until("the pod to go", |bed| bed.supervisor.pods().is_empty()).await;
        assert_eq!(users(), Some(InUse::default()));
        bed.supervisor.shutdown(Duration::ZERO).await;
        assert_eq!(users(), None, "its pods were not deleted");
    });
}
