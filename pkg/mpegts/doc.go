// Package mpegts turns the bytes of an MPEG-2 transport stream (ISO/IEC
// 13818-1) into the access units of one program.
//
// A Demuxer is fed bytes cut anywhere (Write) and calls its Handler, in the
// order of the packets, for each program map, each access unit and each loss
// that it can see. It keeps no clock and no map: equal bytes give equal calls.
//
// Payload is copied once, from the packet into a Block that access units are
// slices of; nothing is allocated per packet.
package mpegts

// PacketSize is the length of a transport packet (13818-1 2.4.3.2).
const PacketSize = 188

const (
	syncByte = 0x47
	nullPID  = 0x1fff
	mask33   = 1<<33 - 1
	// maxUnit bounds a PES packet of video that never ends: the largest access
	// unit of any level of the codecs carried is far below. More than four
	// tracks of video, known or carried as data, share what four may hold.
	maxUnit = 32 << 20
	// maxOther bounds a PES packet of anything else, whose length has 16 bits.
	maxOther = 1 << 20
)
