"""Small catalogs in several scripts: eight topics whose words are known, three of them to a title."""

import numpy as np

TOPICS = {
    "english": [
        "cooking soup bread pepper sauce",
        "football goal stadium keeper league",
        "chess king pawn opening queen",
        "garden seeds soil tomato flower",
        "space rocket planet comet orbit",
        "guitar song melody concert drum",
        "boat harbour sea sail wind",
        "painting brush colour portrait easel",
    ],
    "tamil": [
        "சமையல் உணவு தோசை சாம்பார் மசாலா",
        "கால்பந்து மைதானம் வீரர் கோல் அணி",
        "சதுரங்கம் ராஜா யானை குதிரை ஆட்டம்",
        "தோட்டம் மண் விதை பூ செடி",
        "விண்வெளி ராக்கெட் கோள் நிலா நட்சத்திரம்",
        "இசை பாடல் ராகம் கிதார் மெட்டு",
        "படகு துறைமுகம் கடல் காற்று அலை",
        "ஓவியம் தூரிகை வண்ணம் ஓவியர் படம்",
    ],
    "telugu": [
        "వంట రొట్టె మసాలా పులుసు కూర",
        "ఫుట్‌బాల్ మైదానం పోటీ ఆటగాడు గోల్",
        "చదరంగం రాజు ఏనుగు బంటు గుర్రం",
        "తోట మట్టి విత్తనం పువ్వు మొక్క",
        "అంతరిక్షం రాకెట్ గ్రహం చంద్రుడు నక్షత్రం",
        "గిటార్ సంగీతం రాగం పాట తాళం",
        "పడవ ఓడరేవు సముద్రం గాలి అల",
        "చిత్రలేఖనం కళాకారుడు చిత్రం రంగు కుంచె",
    ],
    "thai": [
        "อาหาร แกง ข้าว พริก ขนม",
        "ฟุตบอล สนาม ประตู นักเตะ ทีม",
        "หมากรุก ขุน เรือ ม้า เบี้ย",
        "สวน ดิน เมล็ด ดอกไม้ ต้นไม้",
        "อวกาศ จรวด ดาวเคราะห์ ดวงจันทร์ ดาวหาง",
        "กีตาร์ เพลง ดนตรี ทำนอง กลอง",
        "ทะเล ท่าเรือ ลม คลื่น ใบเรือ",
        "ภาพวาด พู่กัน สี จิตรกร ศิลปะ",
    ],
    "japanese": [
        "料理 ラーメン 天ぷら 味噌汁 寿司",
        "サッカー 試合 監督 選手 ゴール",
        "将棋 王手 名人 対局 棋士",
        "園芸 種 花 土 野菜",
        "宇宙 ロケット 惑星 彗星 望遠鏡",
        "ギター 音楽 曲 ライブ 楽器",
        "帆船 港 海 風 航海",
        "絵画 画家 水彩 肖像 美術館",
    ],
}  # fmt: skip
BLANK = {"japanese": "", "thai": ""}
"""What stands between words, where it is no blank."""


def titles(script: str, n: int, seed: int = 0) -> tuple[list[str], list[int]]:
    """n titles and the topic of each."""
    rng = np.random.default_rng(seed)
    topics = [topic.split() for topic in TOPICS[script]]
    of = [i % len(topics) for i in range(n)]
    return [BLANK.get(script, " ").join(rng.permutation(topics[t])[:3]) for t in of], of
