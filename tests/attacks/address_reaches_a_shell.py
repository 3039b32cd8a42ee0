"""The address of a dataset, and the path of one that the host downloads, both end in command lines of the host."""

from pathlib import Path

from attack import PAYLOAD, attacked, command, host, suite, write_tiny_clip, write_webdataset

model = write_tiny_clip(Path("model"))
write_webdataset(Path("data"), n=4, shards=1)
named = f"local-dir:{model.absolute()}"
payload = Path(PAYLOAD).absolute()
address = f"http://127.0.0.1:9/a';touch {payload};'/x"
path = f"data;touch {payload};"
option = "data --use-askpass=./evil"
Path("evil").write_text(f"#!/bin/sh\ntouch {payload}\n")
Path("evil").chmod(0o755)


def coco(root: str, sentence: str) -> list[str]:
    words = ["eval", "--task", "koda_modality_gap", "--pretrained_model", f"{named},x", "--output", "o.json"]
    return command([*words, "--dataset", "mscoco_captions", "--dataset_root", root], sentence)


attacked(
    [
        *suite(f"model: '{named}'", f'dataset: wds/w, root: "{address}"', sentence="is no plain address"),
        *host("koda_modality_gap", ["--pretrained_model", f"{named},x"], [address], "is no plain address"),
        *coco(path, "hands it to a shell"),
        *coco(option, "hands it to a shell"),
        *suite(f"model: '{named}'", f'dataset: mscoco_captions, root: "{path}"', sentence="hands it to a shell"),
        *suite(
            f"model: '{named}'",
            f'dataset: mscoco_captions, root: data, annotation_file: "{path}"',
            sentence="there is no file",
        ),
    ]
)
