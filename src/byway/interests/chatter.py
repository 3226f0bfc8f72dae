"""Words that tell nobody what an item is about: function words, and what people say under any video."""

from functools import cache

_CHATTER = """
4k able absolutely actually ago ah aha ahead ain ain't almost alone already alright amp answer anymore anyone
anything apart appear aren't arrive ask asked away bad badly basically beautiful began begin believe believed
best better big bit bookmark bring brought bye came can't catch certain certainly change channel check clip
clips close com come comes comment comments completely content continue cool couldn't couple crazy cut daily day
days definitely did didn't die different difficult directly do does doesn't doing don't done dr easily easy edit
em end ended ending enjoy enough entire ep episode episodes eps especially even ever everybody everyone
everything exactly explain explained explains extremely fact famous favorite favorites favourite favourites feel
feeling fell felt filmed filming final finally find finish fit follow followers forget foryou foryoupage found
free ft full fully fun fyp gave get gets getting give given gives giving glad go goes going gone gonna good got
gotta great guess guy guys ha haha hahaha half happen happened happens happy hard hasn't hate hated hates
haven't hd he'd he'll he's hear heard hello help here's hey hi high hit hold hope hot hour hours how's http
https huge huh i'd i'll i'm i've idea immediately important impossible incredible insane inside instagram
instead interesting isn't it'd it'll it's item just keep keeps kind kinds knew know known knows large late later
learn least leave left less let let's lets level life like liked likes line list literally little ll lol long
longer look looked looking looks lose lost lot lots lovely loving made main make makes making man many matter
mean means meet met min mine minute minutes mistake mistakes moment moments month months more mr mrs ms mustn't
name named near nearly nee need needs never new next nice nobody non normal nothing nsfw number obsessed
obviously of off official often oh ok okay old omg one one's ones only ooh open order original outside part
parts pass past people people's perfect perhaps person pick picture pictures place plan play playing playlist
please plus point possible post present pretty probably problem proud proudest pt put quality question queue
quick quickly quite ready real really reason recently recommend recommended reel reels remember requested right
run said same saw say saying says scene scenes scroll scrolling second seconds see seeing seen send sending
series set share she'd she'll she's shock shocked shocking short shorts should shouldn't show shows side simple
simply single slow small someone something sometimes soon sorry sort special st start started starts stay step
stop straight stuff sub subs subscribe such suddenly super sure surprise take taken takes taking talk tell terms
thank thanks that'll that's there's they'd they'll they're they've thing things think third though thought three
tiktok time times title today today's together told tomorrow tonight too took top total totally trailer trend
trending tried true truly try trying turn turned turns two type ultimate unable understand update upload use
used using usually ve version versions versus very via video videos view viral vlog vol vs wait wanna want
wanted wants wasn't watch watched watching watchlist way ways we'd we'll we're we've week weekend weekends weeks
went weren't what'll what's whatever when's where's who'd who'll who's whole whose why's will win wish won won't
word words work worked works worry worse worst worth would wouldn't wow wrong www yeah year years yes yesterday
yet yo you'd you'll you're you've yours youtube yuan
"""
_PARTICLES = """
aber al alla als an ao as au auf aus aux avec bei bin bist ce ces che chez com como con cui da dal dans das
dass de dei del della delle dem den der des di die dit dos du e ein eine einem einen einer el elle em en
entre er es est et eu fuer für gli het hoy ich ihr il ils in ist je la las le les leur lo los lui ma mais
mas me mein mes mi mit moi mon muy na nach nao ne nel nicht nie no non nos nous não o oder og on os ou où
par para pas per pero por pour pra qu que quel qui quoi se sein ser ses si sich sie sin sind sobre son su
sua sul sur så te toi ton tu ue um un una und une uno unos uns van vom von vor vous wie wir y yo zu zum zur
à é és été être
"""
_ELSEWHERE = """
и в на не что с как это для по из от за к у о а но так же его её я ты он она мы вы они бы был если или когда
في من على إلى عن مع هذا هذه ما لا و أن التي الذي كل هو هي ال של את על עם זה לא כל גם אני הוא היא
के का की है में से को और पर यह ने हैं भी एक तो कर हो था नहीं আর এবং এই না করে থেকে জন্য এর ও
yang dan di untuk dengan ini dari ke itu pada adalah tidak saya ada bir ve bu için çok ile da của và là các một
cho không những được trong có το και της του στο για με από δεν είναι i w z na że się nie jak
이 그 저 것 수 등 및 의 가 을 를 은 는 에 와 과 도 로 으로 에서 하는 있는 그리고 너무 진짜
的 了 是 在 我 你 他 她 它 们 我们 你们 他们 和 就 不 也 都 这 那 有 个 吗 吧 呢 啊 与 及 一 一个 这个 那个
什么 怎么 没
没有 很 太 还 又 到 说 会 要 去 来 上 下 把 被 让 给 对 从 自己 可以 不是 就是 真的 得 着 过 之 而 以 为 人
大 小 好 看
の に は を た が で て と し れ さ も な い や へ か だ ず よ ね わ こと もの する いる ある から まで
です ます した でした
ました って それ これ この その あの という など ない なる よう ため また して してみた みた やってみた
ください さん ちゃん
ที่ และ ใน ของ การ เป็น มี ได้ ให้ ไป มา กับ จะ ไม่ นี้ ว่า แต่ หรือ ก็ คือ จาก โดย แล้ว อยู่ ความ ๆ ครับ
ค่ะ คะ นะ เรา ผม
ฉัน คุณ เขา
"""


@cache
def stop_words() -> frozenset[str]:
    """The shortest function words of languages that people write much in; chatter in English."""
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS  # seconds to import

    return ENGLISH_STOP_WORDS | frozenset(f"{_CHATTER} {_PARTICLES} {_ELSEWHERE}".split())
