#!/bin/bash
# Makes transport streams with ffmpeg's own test sources, one for every codec and
# trait of a broadcast stream that ffmpeg can encode: scripts/make-streams.sh DIR
# STREAMS.md says what becomes of each when it is recorded. None is kept in the
# project: a test makes them, or you do, to try a recorder with. Another version
# of ffmpeg makes other bytes, but as many frames.
set -euo pipefail

dir=${1:?usage: make-streams.sh DIR}
command -v ffmpeg >/dev/null || { echo "make-streams.sh: ffmpeg is missing; apt-get install ffmpeg" >&2; exit 2; }
mkdir -p "$dir"
seconds=4

# make NAME ARGUMENTS...: a picture is input 0, a tone input 1.
make() {
	local name=$1
	shift
	ffmpeg -v error -nostdin -y -fflags +bitexact \
		-f lavfi -i "testsrc2=s=${size:-176x144}:r=${rate:-25}:d=${length:-$seconds}" \
		-f lavfi -i "sine=f=440:r=48000:d=${length:-$seconds}" \
		"$@" -threads 1 -flags:v +bitexact -flags:a +bitexact -f mpegts "$dir/$name.part"
	mv "$dir/$name.part" "$dir/$name.ts"
}

avc="-c:v libx264 -preset veryfast -threads 1 -b:v 150k -g 25"
hevc="-c:v libx265 -preset ultrafast -x265-params log-level=error:pools=1:frame-threads=1:keyint=25"
mpeg2="-c:v mpeg2video -b:v 300k -g 12"
aac="-c:a aac -b:a 48k"

# Video.
make h264 $avc -bf 0 $aac
make h264-b-pyramid $avc -bf 5 -b_strategy 0 -x264-params b-pyramid=normal $aac
make h264-open-gop $avc -bf 3 -b_strategy 0 -x264-params open-gop=1 $aac
make h264-mbaff $avc -bf 2 -flags +ildct+ilme -x264-params tff=1 $aac
make h264-recovery-points $avc -bf 0 -x264-params intra-refresh=1 $aac
make h264-all-keyframes -c:v libx264 -preset veryfast -threads 1 -b:v 500k -g 1 $aac
make h264-high-422-10-bit $avc -bf 2 -pix_fmt yuv422p10le $aac
length=46 make h264-keyframe-every-20s -c:v libx264 -preset veryfast -threads 1 -b:v 80k -g 500 -keyint_min 500 -x264-params scenecut=0 $aac
rate=30000/1001 make h264-29.97 $avc -bf 2 $aac
rate=50 make h264-50 $avc -bf 2 $aac
make hevc $hevc $aac
make hevc-open-gop $hevc:open-gop=1:bframes=4:b-adapt=0 $aac
make hevc-main-10 $hevc -pix_fmt yuv420p10le $aac
make mpeg2 $mpeg2 -bf 2 -c:a mp2 -b:a 64k
make mpeg2-interlaced $mpeg2 -bf 2 -flags +ildct+ilme -c:a mp2 -b:a 64k
make mpeg2-closed-gop $mpeg2 -bf 2 -flags +cgop -sc_threshold 1000000000 -c:a mp2 -b:a 64k
make mpeg1 -c:v mpeg1video -b:v 300k -g 12 -bf 2 -c:a mp2 -b:a 64k

# Audio.
make aac-5.1 $avc -c:a aac -ac 6 -b:a 128k
make aac-44100 $avc -ar 44100 $aac
make aac-latm $avc $aac -mpegts_flags +latm
make mp2-44100 $avc -ar 44100 -c:a mp2 -b:a 64k
make mp2-48000 $avc -c:a mp2 -b:a 64k
make mp3 $avc -c:a libmp3lame -b:a 64k
make ac3 $avc -c:a ac3 -b:a 96k
make ac3-5.1 $avc -c:a ac3 -ac 6 -b:a 384k
make eac3 $avc -c:a eac3 -b:a 96k
make dts $avc -c:a dca -strict -2 -ac 2 -b:a 768k
make opus $avc -c:a libopus -b:a 48k
make opus-5.1 $avc -c:a libopus -ac 6 -b:a 128k
make s302m $avc -c:a s302m -strict -2 -ac 2
make audio-alone -map 1:a $aac

# Multiplexes.
make four-languages -map 0:v -map 1:a -map 1:a -map 1:a -map 1:a $avc -c:a:0 aac -c:a:1 ac3 -c:a:2 mp2 -c:a:3 eac3 -b:a 64k \
	-metadata:s:a:0 language=deu -metadata:s:a:1 language=eng -metadata:s:a:2 language=fra -metadata:s:a:3 language=swe
make two-pictures -map 0:v -map 0:v -map 1:a $avc -b:v:1 80k $aac
make wrap $avc -bf 2 -output_ts_offset 95440 $aac
make null-packets $avc -bf 2 -muxrate 3M $aac
make packets-of-192-bytes $avc -bf 2 -mpegts_m2ts_mode 1 $aac
programs=() maps=()
for k in {0..11}; do
	maps+=(-map 0:v -map 1:a)
	programs+=(-program "title=p$((k + 1)):program_num=$((k + 1)):st=$((2 * k)):st=$((2 * k + 1))")
done
make twelve-programs "${maps[@]}" "${programs[@]}" $avc -bf 2 $aac
