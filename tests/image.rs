//! The image, as `image/layout` lays it out: of any small file, since what the program is plays no part. docs/cluster.md says how the whole
//! image is checked.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};
use tempfile::TempDir;

/// What stands in for a static program.
const PROGRAM: &str = "#!/sidestep\n";

fn lay_out(program: &Path, folder: &Path) -> Output {
    Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("image/layout"))
        .arg(program)
        .args(["arm64", "1.2.3"])
        .arg(folder)
        .output()
        .unwrap()
}

/// A program made at some moment, and where its image is to be.
fn program(scratch: &TempDir) -> (PathBuf, PathBuf) {
    let program = scratch.path().join("a-program");
    std::fs::write(&program, PROGRAM).unwrap();
    (program, scratch.path().join("image"))
}

/// Every file of a folder with what is in it.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let blobs = std::fs::read_dir(folder.join("blobs/sha256")).unwrap();
    let blobs = blobs.map(|blob| blob.unwrap().path());
    let all = blobs.chain([folder.join("index.json"), folder.join("oci-layout")]);
    all.map(|file| {
        let name = file.strip_prefix(folder).unwrap().to_owned();
        (name, std::fs::read(&file).unwrap())
    })
    .collect()
}

fn run(program: &str, arguments: &[&str], folder: &Path) -> String {
    let mut command = Command::new(program);
    let answer = command.args(arguments).current_dir(folder).output();
    let answer = answer.unwrap();
    assert!(
        answer.status.success(),
        "{program} {arguments:?}: {answer:?}"
    );
    String::from_utf8(answer.stdout).unwrap()
}

/// The blob that a descriptor leads to, of the size that it says.
fn follow(descriptor: &Value, media_type: &str, folder: &Path) -> PathBuf {
    let media = format!("application/vnd.oci.image.{media_type}");
    assert_eq!(descriptor["mediaType"], media);
    let digest = descriptor["digest"].as_str().unwrap();
    let blob = digest.strip_prefix("sha256:").unwrap();
    let file = folder.join("blobs/sha256").join(blob);
    let size = std::fs::metadata(&file).unwrap().len();
    assert_eq!(descriptor["size"], size, "{media}");
    file
}

fn read(file: impl AsRef<Path>) -> Value {
    serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()
}

#[test]
fn an_image_is_the_program_and_nothing_else() {
    let scratch = TempDir::new().unwrap();
    let (program, image) = program(&scratch);
    let made = lay_out(&program, &image);
    assert!(made.status.success(), "{made:?}");

    let index = read(image.join("index.json"));
    let found = &index["manifests"][0];
    assert_eq!(
        found["platform"],
        json!({"architecture": "arm64", "os": "linux"})
    );
    let name = &found["annotations"]["org.opencontainers.image.ref.name"];
    assert_eq!(name, "1.2.3");
    let manifest = read(follow(found, "manifest.v1+json", &image));
    assert_eq!(manifest["layers"].as_array().unwrap().len(), 1);
    let config = read(follow(&manifest["config"], "config.v1+json", &image));
    assert_eq!(config["architecture"], "arm64");
    assert_eq!(config["config"]["User"], "65532:65532");
    assert_eq!(config["config"]["Entrypoint"], json!(["/sidestep"]));
    let version = &config["config"]["Labels"]["org.opencontainers.image.version"];
    assert_eq!(version, "1.2.3");

    let layer = follow(&manifest["layers"][0], "layer.v1.tar+gzip", &image);
    let layer = layer.to_str().unwrap();
    let listed = run("tar", &["tvf", layer, "--numeric-owner", "--utc"], &image);
    let line = "-rwxr-xr-x 0/0              12 1970-01-01 00:00 sidestep\n";
    assert_eq!(listed, line);
    assert_eq!(run("tar", &["xfO", layer], &image), PROGRAM);
    let unpacked = run(
        "sh",
        &["-c", &format!("gunzip -c {layer} | sha256sum")],
        &image,
    );
    let sum = unpacked.split(' ').next().unwrap();
    assert_eq!(
        config["rootfs"]["diff_ids"],
        json!([format!("sha256:{sum}")])
    );
}

/// Every blob is called by its digest, and the image of a program that was made at another time, over an older image, is the same.
#[test]
fn the_same_program_gives_the_same_bytes() {
    let images = [0, 1].map(|days| {
        let scratch = TempDir::new().unwrap();
        let (program, image) = program(&scratch);
        let then = format!("--date=1 January 2020 {days} days");
        run("touch", &[&then, program.to_str().unwrap()], scratch.path());
        for _ in 0..=days {
            assert!(lay_out(&program, &image).status.success());
        }
        let blobs = image.join("blobs/sha256");
        run(
            "sh",
            &[
                "-c",
                "for blob in *; do echo \"$blob  $blob\"; done | sha256sum --check",
            ],
            &blobs,
        );
        files(&image)
    });
    assert_eq!(images[0], images[1]);
    assert_eq!(images[0].len(), 5);
}

#[test]
fn what_would_not_start_or_be_lost_is_refused() {
    let scratch = TempDir::new().unwrap();
    let (program, image) = program(&scratch);
    let dynamic = Path::new(env!("CARGO_BIN_EXE_sidestep"));
    for (program, folder, complaint) in [
        (dynamic, image.as_path(), "is not static"),
        (&program, scratch.path(), "is there and is no image"),
    ] {
        let answer = lay_out(program, folder);
        let said = String::from_utf8_lossy(&answer.stderr);
        assert!(!answer.status.success(), "{complaint}");
        assert!(said.contains(complaint), "{said}");
    }
    assert!(program.exists());
    assert!(!image.exists());
}

/// The chart asks for the user that the image names, and for its version.
#[test]
fn chart_and_image_agree() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = |file: &str| std::fs::read_to_string(root.join(file)).unwrap();
    let pod = text("charts/sidestep/templates/_helpers.tpl");
    assert!(pod.contains("runAsUser: 65532\n  runAsGroup: 65532\n"));
    let version = concat!("appVersion: ", env!("CARGO_PKG_VERSION"), "\n");
    assert!(text("charts/sidestep/Chart.yaml").contains(version));
}
