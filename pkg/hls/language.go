package hls

import "strings"

// alpha3 are the codes of ISO 639-2 (terminology) for those of ISO 639-1: two
// letters and three.
const alpha3 = "aaaar afafr amamh arara azaze bebel bgbul bnben bsbos cacat csces cycym dadan dedeu elell eneng eoepo esspa etest eueus " +
	"fafas fifin fofao frfra gagle glglg guguj heheb hihin hrhrv huhun hyhye idind isisl itita iwheb jajpn kakat kkkaz kmkhm knkan kokor kukur " +
	"kykir lalat lbltz lolao ltlit lvlav mkmkd mlmal mnmon mrmar msmsa mtmlt mymya nbnob nenep nlnld nnnno nonor papan plpol pspus ptpor rmroh roron " +
	"rurus sesme sisin skslk slslv sosom sqsqi srsrp svswe swswa tatam tetel tgtgk ththa tktuk tltgl trtur ukukr ururd uzuzb vivie yiyid zhzho zuzul "

// Language returns the code of ISO 639-2 for a language tag of RFC 5646, or
// nothing where it is not known.
func Language(tag string) string {
	primary, _, _ := strings.Cut(strings.ToLower(tag), "-")
	if len(primary) == 2 {
		for list := alpha3; len(list) >= 6; list = list[6:] {
			if list[:2] == primary {
				return list[2:5]
			}
		}
	}
	return languageOf(primary)
}
