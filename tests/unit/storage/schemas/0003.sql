BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0003');
CREATE TABLE artifacts (
	seq INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	"key" VARCHAR NOT NULL, 
	run VARCHAR, 
	study VARCHAR, 
	body TEXT NOT NULL, 
	UNIQUE ("key")
);
INSERT INTO "artifacts" VALUES(1,'a_00020','run','s_00004','{"id":"a_00020","run":"run","study":"s_00004","name":"winner","weights":{"values":[0.4,0.6]},"dtype":"keep","manifest":{"files":[{"name":"model.safetensors","size":72,"digest":{"hex":"7cfa0cb23c3422199dc2e4b1ebc28aa501eb41a8dfca5a7351a9a6c48a402a78"}}],"tensors":[{"spec":{"name":"w","dtype":"F32","shape":[2]},"file":"model.safetensors","offset":64,"digest":null}]},"promoted":true,"pinned":false,"removed":null,"created":0.0}');
CREATE TABLE blobs (
	seq INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	"key" VARCHAR NOT NULL, 
	body TEXT NOT NULL, 
	UNIQUE ("key")
);
INSERT INTO "blobs" VALUES(1,'1193a1545974d3213837c2b4324d1850ea2f826838c8688c5a2a378f6182a019','{"hex":"1193a1545974d3213837c2b4324d1850ea2f826838c8688c5a2a378f6182a019","size":96,"created":0.0,"version":1,"lasting":false}');
INSERT INTO "blobs" VALUES(2,'44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a','{"hex":"44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2,"created":0.0,"version":7,"lasting":false}');
INSERT INTO "blobs" VALUES(3,'af8ab71333159385975b2f376cabc98913bde9b314d7376fdfa9750d939c2412','{"hex":"af8ab71333159385975b2f376cabc98913bde9b314d7376fdfa9750d939c2412","size":96,"created":0.0,"version":1,"lasting":false}');
CREATE TABLE checkpoints (
	seq INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	"key" VARCHAR NOT NULL, 
	run VARCHAR, 
	step INTEGER, 
	body TEXT NOT NULL, 
	UNIQUE ("key")
);
INSERT INTO "checkpoints" VALUES(1,'c_00000','run',100,'{"id":"c_00000","run":"run","attempt":1,"step":100,"tokens":null,"manifest":{"files":[{"name":"config.json","size":2,"digest":{"hex":"44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"}},{"name":"model.safetensors","size":96,"digest":{"hex":"1193a1545974d3213837c2b4324d1850ea2f826838c8688c5a2a378f6182a019"}},{"name":"tokenizer.json","size":2,"digest":{"hex":"44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"}}],"tensors":[{"spec":{"name":"w","dtype":"F32","shape":[8]},"file":"model.safetensors","offset":64,"digest":{"hex":"5c4477a4d655e68137d38330226ff18ab5f51aba4ff69bd4a02880e156fa3c0b"}}]},"given":{"hex":"1130688e9220848f7ce75c32f7ac68a3f2860e2b62ac3b954e2e1ee0ba00b077"},"missing":[],"pinned":false,"removed":null,"created":0.0}');
INSERT INTO "checkpoints" VALUES(2,'c_00002','run',200,'{"id":"c_00002","run":"run","attempt":1,"step":200,"tokens":null,"manifest":{"files":[{"name":"config.json","size":2,"digest":{"hex":"44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"}},{"name":"model.safetensors","size":96,"digest":{"hex":"af8ab71333159385975b2f376cabc98913bde9b314d7376fdfa9750d939c2412"}},{"name":"tokenizer.json","size":2,"digest":{"hex":"44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"}}],"tensors":[{"spec":{"name":"w","dtype":"F32","shape":[8]},"file":"model.safetensors","offset":64,"digest":{"hex":"0e845de382028e593163b8ee8eae6921dbef548a38cf791d48130a031cc36fc1"}}]},"given":{"hex":"bbad10d24ae119230bdc5e2912f161c95831b350b335b9f1c3ba791fd7ed2f61"},"missing":[],"pinned":false,"removed":null,"created":0.0}');
CREATE TABLE events (
	seq INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	"key" VARCHAR NOT NULL, 
	run VARCHAR, 
	body TEXT NOT NULL, 
	UNIQUE ("key")
);
INSERT INTO "events" VALUES(1,'v_00001','run','{"id":"v_00001","run":"run","kind":"checkpoint-registered","data":{"checkpoint":"c_00000","step":100,"missing":[]},"created":0.0}');
INSERT INTO "events" VALUES(2,'v_00003','run','{"id":"v_00003","run":"run","kind":"checkpoint-registered","data":{"checkpoint":"c_00002","step":200,"missing":[]},"created":0.0}');
INSERT INTO "events" VALUES(3,'v_00005','run','{"id":"v_00005","run":"run","kind":"study-opened","data":{"study":"s_00004","steps":[100,200],"skipped":0},"created":0.0}');
INSERT INTO "events" VALUES(4,'v_00007','run','{"id":"v_00007","run":"run","kind":"trial-proposed","data":{"study":"s_00004","trial":0,"name":"newest"},"created":0.0}');
INSERT INTO "events" VALUES(5,'v_00008','run','{"id":"v_00008","run":"run","kind":"trial-observed","data":{"study":"s_00004","trial":0,"value":2.0888542663039225},"created":0.0}');
INSERT INTO "events" VALUES(6,'v_00010','run','{"id":"v_00010","run":"run","kind":"trial-proposed","data":{"study":"s_00004","trial":1,"name":"previous"},"created":0.0}');
INSERT INTO "events" VALUES(7,'v_00011','run','{"id":"v_00011","run":"run","kind":"trial-observed","data":{"study":"s_00004","trial":1,"value":2.1888504377891245},"created":0.0}');
INSERT INTO "events" VALUES(8,'v_00013','run','{"id":"v_00013","run":"run","kind":"trial-proposed","data":{"study":"s_00004","trial":2,"name":"uniform-2"},"created":0.0}');
INSERT INTO "events" VALUES(9,'v_00014','run','{"id":"v_00014","run":"run","kind":"trial-observed","data":{"study":"s_00004","trial":2,"value":2.013838812580795},"created":0.0}');
INSERT INTO "events" VALUES(10,'v_00016','run','{"id":"v_00016","run":"run","kind":"trial-proposed","data":{"study":"s_00004","trial":3,"name":null},"created":0.0}');
INSERT INTO "events" VALUES(11,'v_00017','run','{"id":"v_00017","run":"run","kind":"trial-observed","data":{"study":"s_00004","trial":3,"value":2.008848502862474},"created":0.0}');
INSERT INTO "events" VALUES(12,'v_00018','run','{"id":"v_00018","run":"run","kind":"study-frozen","data":{"study":"s_00004","winner":3,"reason":"nothing is left to find"},"created":0.0}');
INSERT INTO "events" VALUES(13,'v_00029','run','{"id":"v_00029","run":"run","kind":"best-promoted","data":{"study":"s_00004","artifact":"a_00020","reason":"winner beats newest at alpha 0.0304"},"created":0.0}');
CREATE TABLE held_out_sets (
	seq INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	"key" VARCHAR NOT NULL, 
	body TEXT NOT NULL, 
	UNIQUE ("key")
);
INSERT INTO "held_out_sets" VALUES(1,'default','{"name":"default","digest":{"hex":"f5e80ed4d44be4dc1917682dae7937614e2cf8cf246a0bdaf5eefb15a01d6717"},"file":{"name":"h","size":1,"digest":{"hex":"aaa9402664f1a41f40ebbc52c9993eb66aeb366602958fdfaa283b71e64db123"}},"created":0.0}');
CREATE TABLE runs (
	seq INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	"key" VARCHAR NOT NULL, 
	body TEXT NOT NULL, 
	UNIQUE ("key")
);
INSERT INTO "runs" VALUES(1,'run','{"name":"run","run":{"name":"run","era":{"held_out":{"hex":"f5e80ed4d44be4dc1917682dae7937614e2cf8cf246a0bdaf5eefb15a01d6717"},"tests":1},"earlier":[]},"held_out":"default","era":1,"attempt":1,"study":{"budget":12},"window":{"size":4,"every":2,"minimum":2},"retention":{"keep_last":null,"keep_every":null,"keep_best":null},"files":[],"best":"a_00020","promotion":"s_00004","pin":null,"considered":2,"created":0.0}');
CREATE TABLE scores (
	seq INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	"key" VARCHAR NOT NULL, 
	body TEXT NOT NULL, 
	UNIQUE ("key")
);
INSERT INTO "scores" VALUES(1,'b9d3c6731b36e001242d5c1897afefdf601d2f74b6362a846897bafd218e41d7','{"hex":"b9d3c6731b36e001242d5c1897afefdf601d2f74b6362a846897bafd218e41d7","scores":{"hex":"7357a3295ef977cd4950fe5f516914c9e362e9ddc544c3ac31fddeeaa71c8346"},"repeated":{"hex":"7357a3295ef977cd4950fe5f516914c9e362e9ddc544c3ac31fddeeaa71c8346"},"created":0.0}');
INSERT INTO "scores" VALUES(2,'47468217380e0cd306b7df3abfd79d1ff86337b70b3a5e5e823e34c9daa5d9e3','{"hex":"47468217380e0cd306b7df3abfd79d1ff86337b70b3a5e5e823e34c9daa5d9e3","scores":{"hex":"e8b9f4a74a73f224d351363a02db387b58d5cf13f8ca3c54f31b3f91cd0bbe25"},"repeated":null,"created":0.0}');
INSERT INTO "scores" VALUES(3,'99c08e8f985d3eba90d219f00d65c8820f5b4bba9a20b9e9c6e863a198d17319','{"hex":"99c08e8f985d3eba90d219f00d65c8820f5b4bba9a20b9e9c6e863a198d17319","scores":{"hex":"eee7d495b55abd1a1c27d885ab290edd126128d190d54f9e5465cfb74d153c1b"},"repeated":null,"created":0.0}');
INSERT INTO "scores" VALUES(4,'3acb3a2998dc7058d82dd2d85c9aca06e83fdffc3bb7d29b3943d492c0533618','{"hex":"3acb3a2998dc7058d82dd2d85c9aca06e83fdffc3bb7d29b3943d492c0533618","scores":{"hex":"9fa285263147fead469d8ed8ab444807df131328c334901eaf6023cae127c541"},"repeated":null,"created":0.0}');
INSERT INTO "scores" VALUES(5,'a9a2ab226f4a7a8a56d700f5b78126f3683bc0d5b9213703699ab635dba96bef','{"hex":"a9a2ab226f4a7a8a56d700f5b78126f3683bc0d5b9213703699ab635dba96bef","scores":{"hex":"f96b8397c4d12800c7a9b3b8a13c151eded1c123c52eb35535a82abfa8e95381"},"repeated":null,"created":0.0}');
INSERT INTO "scores" VALUES(6,'58526cfa1302582187284c2f8aac7da93a6123e6df8c1b1df4a9c5d6de5f361a','{"hex":"58526cfa1302582187284c2f8aac7da93a6123e6df8c1b1df4a9c5d6de5f361a","scores":{"hex":"739ccf09db368bad6e9dc1e4c1566ad8e69ae8be5e0fe57cf93362ffddb856f1"},"repeated":null,"created":0.0}');
CREATE TABLE studies (
	seq INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	"key" VARCHAR NOT NULL, 
	run VARCHAR, 
	state VARCHAR, 
	body TEXT NOT NULL, 
	UNIQUE ("key")
);
INSERT INTO "studies" VALUES(1,'s_00004','run','decided','{"id":"s_00004","run":"run","era":1,"held_out":"default","checkpoints":["c_00000","c_00002"],"spec":{"space":{"kind":"simplex","lower":[0.0,0.0],"upper":[1.0,1.0]},"budget":12,"seed":0,"dtype":"keep","objective":{"domain_weights":{},"limits":{}}},"context":null,"state":"decided","winner":3,"stopped":"nothing is left to find","verdict":{"best":"a_00020","before":null,"before_score":null,"weights":{"values":[0.4,0.6]},"reason":"winner beats newest at alpha 0.0304","certificates":[{"subject":"winner","test":1,"gains":[{"against":"newest","interval":{"mean":0.0799934201009341,"low":0.07996342511664993,"high":0.08002168671940116,"level":0.95},"p":1.3769503631875104e-146,"split":"certify","documents":107,"domains":{"code":{"interval":{"mean":0.07998620386055061,"low":0.07994101515802288,"high":0.08003095050207377,"level":0.95},"documents":53,"too_few":false},"prose":{"interval":{"mean":0.08000063634131761,"low":0.0799623033424269,"high":0.08004247276657066,"level":0.95},"documents":54,"too_few":false}},"unit":"bits_per_byte"}],"worse_domains":[],"held_out":{"hex":"f5e80ed4d44be4dc1917682dae7937614e2cf8cf246a0bdaf5eefb15a01d6717"},"documents":107,"units":107,"artifact":{"hex":"34e8cc4504c85fe4e7d2837c742bec17102ce6f347249637fc2bf1dce4aeaf03"}}],"score":{"interval":{"mean":2.014798208432345,"low":1.9610703776471663,"high":2.067967420745246,"level":0.95},"split":"audit","documents":112,"domains":{"code":{"interval":{"mean":2.028700141025035,"low":1.9541611170481852,"high":2.101789104624636,"level":0.95},"documents":56,"too_few":false},"prose":{"interval":{"mean":2.000896275839655,"low":1.916011443273256,"high":2.084958504784728,"level":0.95},"documents":56,"too_few":false}},"unit":"bits_per_byte"},"baselines":{"newest":{"interval":{"mean":2.0947936009274075,"low":2.041110760582477,"high":2.1479454156796263,"level":0.95},"split":"audit","documents":112,"domains":{"code":{"interval":{"mean":2.108684465316265,"low":2.0342047737443405,"high":2.1817973159486947,"level":0.95},"documents":56,"too_few":false},"prose":{"interval":{"mean":2.08090273653855,"low":1.9960358237700777,"high":2.1649514627381783,"level":0.95},"documents":56,"too_few":false}},"unit":"bits_per_byte"},"uniform-2":{"interval":{"mean":2.0197950176114587,"low":1.9660729399677725,"high":2.0729686180971636,"level":0.95},"split":"audit","documents":112,"domains":{"code":{"interval":{"mean":2.0336963642587045,"low":1.9591727944158719,"high":2.1067911259470162,"level":0.95},"documents":56,"too_few":false},"prose":{"interval":{"mean":2.005893670964213,"low":1.9210083854705304,"high":2.089945413932032,"level":0.95},"documents":56,"too_few":false}},"unit":"bits_per_byte"},"wma-2":{"interval":{"mean":2.017036522387298,"low":1.963329156433931,"high":2.070209702187044,"level":0.95},"split":"audit","documents":112,"domains":{"code":{"interval":{"mean":2.0309255231778183,"low":1.95640918795315,"high":2.104038255829261,"level":0.95},"documents":56,"too_few":false},"prose":{"interval":{"mean":2.0031475215967776,"low":1.918285991871653,"high":2.0872099015429275,"level":0.95},"documents":56,"too_few":false}},"unit":"bits_per_byte"},"ema-0.2-2":{"interval":{"mean":2.0947936009274075,"low":2.041110760582477,"high":2.1479454156796263,"level":0.95},"split":"audit","documents":112,"domains":{"code":{"interval":{"mean":2.108684465316265,"low":2.0342047737443405,"high":2.1817973159486947,"level":0.95},"documents":56,"too_few":false},"prose":{"interval":{"mean":2.08090273653855,"low":1.9960358237700777,"high":2.1649514627381783,"level":0.95},"documents":56,"too_few":false}},"unit":"bits_per_byte"}},"gains":[{"against":"newest","interval":{"mean":0.07999539249506246,"low":0.0799658637914783,"high":0.08002372103922467,"level":0.95},"p":1.3832406333232343e-153,"split":"audit","documents":112,"domains":{"code":{"interval":{"mean":0.07998432429122995,"low":0.07993954565923798,"high":0.0800278985615826,"level":0.95},"documents":56,"too_few":false},"prose":{"interval":{"mean":0.08000646069889496,"low":0.07996902382579935,"high":0.08004287693928507,"level":0.95},"documents":56,"too_few":false}},"unit":"bits_per_byte"},{"against":"uniform-2","interval":{"mean":0.004996809179113664,"low":0.004972562323236757,"high":0.005021744550295557,"level":0.95},"p":6.851435588433433e-174,"split":"audit","documents":112,"domains":{"code":{"interval":{"mean":0.004996223233669684,"low":0.004958853767484219,"high":0.005033480215263227,"level":0.95},"documents":56,"too_few":false},"prose":{"interval":{"mean":0.004997395124557644,"low":0.004964132721316373,"high":0.005030849353743982,"level":0.95},"documents":56,"too_few":false}},"unit":"bits_per_byte"}],"better_than_uniform":{"against":"uniform-2","interval":{"mean":0.004996809179113664,"low":0.004972562323236757,"high":0.005021744550295557,"level":0.95},"p":6.851435588433433e-174,"split":"audit","documents":112,"domains":{"code":{"interval":{"mean":0.004996223233669684,"low":0.004958853767484219,"high":0.005033480215263227,"level":0.95},"documents":56,"too_few":false},"prose":{"interval":{"mean":0.004997395124557644,"low":0.004964132721316373,"high":0.005030849353743982,"level":0.95},"documents":56,"too_few":false}},"unit":"bits_per_byte"},"passes":{"search":5,"certify":2,"audit":5}},"opening":null,"ahead":null,"created":0.0}');
CREATE TABLE tasks (
	seq INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	"key" VARCHAR NOT NULL, 
	study VARCHAR, 
	state VARCHAR, 
	kind VARCHAR, 
	body TEXT NOT NULL, 
	UNIQUE ("key")
);
INSERT INTO "tasks" VALUES(1,'l_00006','s_00004','done','evaluate','{"id":"l_00006","study":"s_00004","state":"done","kind":"evaluate","task":{"id":"l_00006","study":"s_00004","kind":"evaluate","name":"trial-0","order":{"weights":{"values":[0.0,1.0]},"split":"search","subject":null,"repeat":true},"trial":0,"state":"done","fence":1,"given_back":0,"worker":null,"expires":null,"outcome":{"status":"ok","reason":null,"scores":{"hex":"7357a3295ef977cd4950fe5f516914c9e362e9ddc544c3ac31fddeeaa71c8346"},"repeated":{"hex":"7357a3295ef977cd4950fe5f516914c9e362e9ddc544c3ac31fddeeaa71c8346"},"files":[],"seconds":{},"bytes_written":0},"reason":null},"baseline":"newest","observation":{"value":2.0888542663039225,"variance":1e-14,"replicates":[2.045702823279999,2.1051870394889995,2.101563501301595,2.061813599789117,2.1221660499276895,2.048126882458651,2.100157097082551,2.0634432659114306,2.1098176358355825,2.0666052501931933,2.1203997651143807,2.099019539156833,2.0856634100173133,2.098667013063759,2.073594096043109,2.1261124736169013,2.1129781626123547,2.067698654364728,2.064858109061279,2.070027098283898,2.067592480052394,2.090115204867775,2.1057928329689055,2.0962446888712485,2.100871830115711,2.098080893082056,2.0432380023681094,2.1291435416869016,2.0952680812722018,2.0920040301124034,2.0934975104655402,2.0951644237230433,2.108587238583292,2.091691525010525,2.093389002440794,2.088653553728439,2.0699064485266176,2.0911130647029115,2.069124437744733,2.100919576683183,2.0974797184292835,2.0680817242673726,2.046540975138102,2.118985976032236,2.1206306187949204,2.0868617426512843,2.077438261849598,2.116514615978568,2.062375737545977,2.0641283229884078,2.0821432690834487,2.0818734543872903,2.074631571352869,2.0750057822522665,2.1181455052311167,2.1147057593124723,2.09983407344368,2.0994937713228623,2.052003053014949,2.059628039350537,2.084576151716133,2.0624797136967605,2.0778982257816745,2.1164348052062696],"scores":{"hex":"7357a3295ef977cd4950fe5f516914c9e362e9ddc544c3ac31fddeeaa71c8346"}},"reused":false,"created":0.0}');
INSERT INTO "tasks" VALUES(2,'l_00009','s_00004','done','evaluate','{"id":"l_00009","study":"s_00004","state":"done","kind":"evaluate","task":{"id":"l_00009","study":"s_00004","kind":"evaluate","name":"trial-1","order":{"weights":{"values":[1.0,0.0]},"split":"search","subject":null,"repeat":false},"trial":1,"state":"done","fence":1,"given_back":0,"worker":null,"expires":null,"outcome":{"status":"ok","reason":null,"scores":{"hex":"e8b9f4a74a73f224d351363a02db387b58d5cf13f8ca3c54f31b3f91cd0bbe25"},"repeated":null,"files":[],"seconds":{},"bytes_written":0},"reason":null},"baseline":"previous","observation":{"value":2.1888504377891245,"variance":1e-14,"replicates":[2.145699337547616,2.205188323574903,2.2015592636129675,2.1618206055793965,2.2221646009713503,2.148132075320853,2.2001525004620563,2.163443718206387,2.2098167976715324,2.1665943208787803,2.220408371893149,2.199025568604415,2.1856586062825007,2.198669657346219,2.1736002534282814,2.226110280402484,2.2129653524652837,2.1677064608387164,2.164855154356836,2.170024243881228,2.167582040386736,2.190130476077689,2.20578989545048,2.1962486076677594,2.2008591111443536,2.1980660376591867,2.1432157389558433,2.229125747473076,2.195264600269523,2.191988250283643,2.1934850877171472,2.1951627432215224,2.208589079676055,2.1916949168755613,2.193392989393115,2.188636135882695,2.169897464679815,2.1911149597202595,2.169135499008994,2.2009290549150977,2.197485011733187,2.168073155218982,2.146539444515698,2.2189662053595014,2.2206236760417717,2.1868628980644296,2.177450147765458,2.216501923295323,2.1623672702890033,2.164132875927952,2.1821447156286577,2.1818625420017628,2.1746226798970563,2.174996796431337,2.21814731036306,2.2147014599327495,2.1998393381159085,2.1994884164469353,2.1519904986611946,2.159617812196392,2.184574583058268,2.1624714768608766,2.1779033652826634,2.2164163596323343],"scores":{"hex":"e8b9f4a74a73f224d351363a02db387b58d5cf13f8ca3c54f31b3f91cd0bbe25"}},"reused":false,"created":0.0}');
INSERT INTO "tasks" VALUES(3,'l_00012','s_00004','done','evaluate','{"id":"l_00012","study":"s_00004","state":"done","kind":"evaluate","task":{"id":"l_00012","study":"s_00004","kind":"evaluate","name":"trial-2","order":{"weights":{"values":[0.5,0.5]},"split":"search","subject":null,"repeat":false},"trial":2,"state":"done","fence":1,"given_back":0,"worker":null,"expires":null,"outcome":{"status":"ok","reason":null,"scores":{"hex":"a712c398729b9607299c7a551c305215e9fe7a305b8a9d05ef14fbde5a4dadc9"},"repeated":null,"files":[],"seconds":{},"bytes_written":0},"reason":null},"baseline":"uniform-2","observation":{"value":2.013838812580795,"variance":1e-14,"replicates":[1.9706872779932165,2.030170618524659,2.0265485399819028,1.9867860862280486,2.0471403401456523,1.973107907309871,2.0251317321676696,1.988421254244841,2.0348128647209056,1.9915668179584602,2.045376555620325,2.0240050971461283,2.010635749070798,2.023652653698848,1.998600274856158,2.0511001976078345,2.0379606444981166,1.992694940954829,1.9898311667566393,1.9950196800961013,1.9925783852762489,2.0151045537286336,2.030769117268042,2.0212409370634883,2.025864843400467,2.0230556835371942,1.9682137508233826,2.054133989410386,2.0202513463623823,2.016984009604662,2.0184802572070186,2.020153904759228,2.033585172681358,2.016680932335213,2.018392251054305,2.013623131044259,1.9948853158091753,2.0161017916336323,1.9941295453213153,2.025922297053199,2.0224677979791945,1.9930634184753893,1.9715269616358801,2.043950396026619,2.0456268162264397,2.011853894667241,2.002435031287109,2.0414868999859594,1.9873447215253863,1.9891167978652393,2.0071296217879246,2.006852664710545,1.9996124895679648,1.9999942183438841,2.0431355545359073,2.0396845197456566,2.0248479135793858,2.0244910828614957,1.9769978047260586,1.984610532771995,2.009562811458081,1.987453084944316,2.00289208027702,2.041412467242531],"scores":{"hex":"a712c398729b9607299c7a551c305215e9fe7a305b8a9d05ef14fbde5a4dadc9"}},"reused":false,"created":0.0}');
INSERT INTO "tasks" VALUES(4,'l_00015','s_00004','done','evaluate','{"id":"l_00015","study":"s_00004","state":"done","kind":"evaluate","task":{"id":"l_00015","study":"s_00004","kind":"evaluate","name":"trial-3","order":{"weights":{"values":[0.4,0.6]},"split":"search","subject":null,"repeat":false},"trial":3,"state":"done","fence":1,"given_back":0,"worker":null,"expires":null,"outcome":{"status":"ok","reason":null,"scores":{"hex":"f9afe20e01579ad8772cd5141624791e601143ea7a255fc883cf6524080355df"},"repeated":null,"files":[],"seconds":{},"bytes_written":0},"reason":null},"baseline":null,"observation":{"value":2.008848502862474,"variance":1e-14,"replicates":[1.9657031989586788,2.0251732298309557,2.0215537245688378,1.981820161956711,2.042160372827843,1.9681189359541118,2.0201476927258564,1.9834365804390148,2.0298238445938237,1.9865853734442556,2.0403947781763208,2.0190202513625293,2.0056573411928555,2.0186607676832167,1.9936061282965079,2.0461072686504393,2.032977849257927,1.9877028942771249,1.9848433358409305,1.990023483100928,1.987585695616857,2.010096758599703,2.0257807095647116,2.016242931177809,2.0208583800508033,2.0180588405626425,1.9632270390230948,2.0491459749380287,2.015270098844776,2.011986020806602,2.0134821770040197,2.0151615583034563,2.0285646849598606,2.011678554189298,2.013393357979842,2.0086379705280883,1.989912432107287,2.0111007289337803,1.989115734849837,2.0209167066829763,2.0174821227343696,1.9880730192684122,1.966540682402175,2.03896739753137,2.0406401782061474,2.006861665763769,1.997445064047078,2.036509939870845,1.9823615081980686,1.9841150783419772,2.002144588198634,2.001864972714689,1.9946150698135376,1.99499658383156,2.0381426953363437,2.0347016537308242,2.01984458378175,2.0195061961217604,1.971983944701356,1.979619414447927,2.004582166711192,1.982470912445022,1.9978924159277518,2.036409143577008],"scores":{"hex":"f9afe20e01579ad8772cd5141624791e601143ea7a255fc883cf6524080355df"}},"reused":false,"created":0.0}');
INSERT INTO "tasks" VALUES(5,'l_00019','s_00004','done','materialise','{"id":"l_00019","study":"s_00004","state":"done","kind":"materialise","task":{"id":"l_00019","study":"s_00004","kind":"materialise","name":"write-winner","order":{"weights":{"values":[0.4,0.6]},"split":null,"subject":null,"repeat":false},"trial":null,"state":"done","fence":1,"given_back":0,"worker":null,"expires":null,"outcome":{"status":"ok","reason":null,"scores":null,"repeated":null,"files":[{"name":"model.safetensors","size":72,"digest":{"hex":"7cfa0cb23c3422199dc2e4b1ebc28aa501eb41a8dfca5a7351a9a6c48a402a78"}}],"seconds":{},"bytes_written":0},"reason":null},"baseline":null,"observation":null,"reused":false,"created":0.0}');
INSERT INTO "tasks" VALUES(6,'l_00022','s_00004','done','certify','{"id":"l_00022","study":"s_00004","state":"done","kind":"certify","task":{"id":"l_00022","study":"s_00004","kind":"certify","name":"certify-a_00020","order":{"weights":null,"split":"certify","subject":"a_00020","repeat":false},"trial":null,"state":"done","fence":1,"given_back":0,"worker":null,"expires":null,"outcome":{"status":"ok","reason":null,"scores":{"hex":"eee7d495b55abd1a1c27d885ab290edd126128d190d54f9e5465cfb74d153c1b"},"repeated":null,"files":[],"seconds":{},"bytes_written":0},"reason":null},"baseline":null,"observation":null,"reused":false,"created":0.0}');
INSERT INTO "tasks" VALUES(7,'l_00023','s_00004','done','certify','{"id":"l_00023","study":"s_00004","state":"done","kind":"certify","task":{"id":"l_00023","study":"s_00004","kind":"certify","name":"certify-c_00002","order":{"weights":null,"split":"certify","subject":"c_00002","repeat":false},"trial":null,"state":"done","fence":1,"given_back":0,"worker":null,"expires":null,"outcome":{"status":"ok","reason":null,"scores":{"hex":"9fa285263147fead469d8ed8ab444807df131328c334901eaf6023cae127c541"},"repeated":null,"files":[],"seconds":{},"bytes_written":0},"reason":null},"baseline":null,"observation":null,"reused":false,"created":0.0}');
INSERT INTO "tasks" VALUES(8,'l_00024','s_00004','done','certify','{"id":"l_00024","study":"s_00004","state":"done","kind":"certify","task":{"id":"l_00024","study":"s_00004","kind":"certify","name":"audit-c_00002","order":{"weights":null,"split":"audit","subject":"c_00002","repeat":false},"trial":null,"state":"done","fence":1,"given_back":0,"worker":null,"expires":null,"outcome":{"status":"ok","reason":null,"scores":{"hex":"f96b8397c4d12800c7a9b3b8a13c151eded1c123c52eb35535a82abfa8e95381"},"repeated":null,"files":[],"seconds":{},"bytes_written":0},"reason":null},"baseline":null,"observation":null,"reused":false,"created":0.0}');
INSERT INTO "tasks" VALUES(9,'l_00025','s_00004','done','certify','{"id":"l_00025","study":"s_00004","state":"done","kind":"certify","task":{"id":"l_00025","study":"s_00004","kind":"certify","name":"audit-a_00020","order":{"weights":null,"split":"audit","subject":"a_00020","repeat":false},"trial":null,"state":"done","fence":1,"given_back":0,"worker":null,"expires":null,"outcome":{"status":"ok","reason":null,"scores":{"hex":"739ccf09db368bad6e9dc1e4c1566ad8e69ae8be5e0fe57cf93362ffddb856f1"},"repeated":null,"files":[],"seconds":{},"bytes_written":0},"reason":null},"baseline":null,"observation":null,"reused":false,"created":0.0}');
INSERT INTO "tasks" VALUES(10,'l_00026','s_00004','done','evaluate','{"id":"l_00026","study":"s_00004","state":"done","kind":"evaluate","task":{"id":"l_00026","study":"s_00004","kind":"evaluate","name":"audit-uniform-2","order":{"weights":{"values":[0.5,0.5]},"split":"audit","subject":null,"repeat":false},"trial":null,"state":"done","fence":1,"given_back":0,"worker":null,"expires":null,"outcome":{"status":"ok","reason":null,"scores":{"hex":"a048c31363112cc9a9dde126a21001cd3d004aad1ee5aa5a07ec55700ac10f89"},"repeated":null,"files":[],"seconds":{},"bytes_written":0},"reason":null},"baseline":null,"observation":null,"reused":false,"created":0.0}');
INSERT INTO "tasks" VALUES(11,'l_00027','s_00004','done','evaluate','{"id":"l_00027","study":"s_00004","state":"done","kind":"evaluate","task":{"id":"l_00027","study":"s_00004","kind":"evaluate","name":"audit-wma-2","order":{"weights":{"values":[0.3333333333333333,0.6666666666666666]},"split":"audit","subject":null,"repeat":false},"trial":null,"state":"done","fence":1,"given_back":0,"worker":null,"expires":null,"outcome":{"status":"ok","reason":null,"scores":{"hex":"75d8f21808127ae3635e1908c5db132e4376f9f15be5e7fec6649fa826959f46"},"repeated":null,"files":[],"seconds":{},"bytes_written":0},"reason":null},"baseline":null,"observation":null,"reused":false,"created":0.0}');
INSERT INTO "tasks" VALUES(12,'l_00028','s_00004','done','evaluate','{"id":"l_00028","study":"s_00004","state":"done","kind":"evaluate","task":{"id":"l_00028","study":"s_00004","kind":"evaluate","name":"audit-ema-0.2-2","order":{"weights":{"values":[0.8,0.2]},"split":"audit","subject":null,"repeat":false},"trial":null,"state":"done","fence":1,"given_back":0,"worker":null,"expires":null,"outcome":{"status":"ok","reason":null,"scores":{"hex":"f96b8397c4d12800c7a9b3b8a13c151eded1c123c52eb35535a82abfa8e95381"},"repeated":null,"files":[],"seconds":{},"bytes_written":0},"reason":null},"baseline":null,"observation":null,"reused":false,"created":0.0}');
CREATE TABLE tests (
	seq INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	"key" VARCHAR NOT NULL, 
	run VARCHAR, 
	era INTEGER, 
	body TEXT NOT NULL, 
	UNIQUE ("key")
);
INSERT INTO "tests" VALUES(1,'e_00021','run',1,'{"id":"e_00021","run":"run","era":1,"number":1,"subject":{"hex":"34e8cc4504c85fe4e7d2837c742bec17102ce6f347249637fc2bf1dce4aeaf03"},"rivals":[{"hex":"bbad10d24ae119230bdc5e2912f161c95831b350b335b9f1c3ba791fd7ed2f61"}],"created":0.0}');
CREATE TABLE uploads (
	seq INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	"key" VARCHAR NOT NULL, 
	state VARCHAR, 
	body TEXT NOT NULL, 
	UNIQUE ("key")
);
INSERT INTO "uploads" VALUES(1,'u','open','{"id":"u","state":"open","upload":{"digest":{"hex":"ff4085ad157354dc8ea67a848e7c2270b4a19282713cf3a7ecf8e0ffbb159ed1"},"length":10,"offset":5,"complete":false},"created":0.0}');
CREATE INDEX ix_checkpoints_run ON checkpoints (run);
CREATE INDEX ix_checkpoints_step ON checkpoints (step);
CREATE INDEX ix_studies_run ON studies (run);
CREATE INDEX ix_studies_state ON studies (state);
CREATE INDEX ix_tasks_study ON tasks (study);
CREATE INDEX ix_tasks_state ON tasks (state);
CREATE INDEX ix_tasks_kind ON tasks (kind);
CREATE INDEX ix_artifacts_run ON artifacts (run);
CREATE INDEX ix_artifacts_study ON artifacts (study);
CREATE INDEX ix_tests_run ON tests (run);
CREATE INDEX ix_tests_era ON tests (era);
CREATE INDEX ix_events_run ON events (run);
CREATE INDEX ix_uploads_state ON uploads (state);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('held_out_sets',1);
INSERT INTO "sqlite_sequence" VALUES('runs',1);
INSERT INTO "sqlite_sequence" VALUES('blobs',3);
INSERT INTO "sqlite_sequence" VALUES('checkpoints',2);
INSERT INTO "sqlite_sequence" VALUES('events',13);
INSERT INTO "sqlite_sequence" VALUES('studies',1);
INSERT INTO "sqlite_sequence" VALUES('tasks',12);
INSERT INTO "sqlite_sequence" VALUES('scores',6);
INSERT INTO "sqlite_sequence" VALUES('artifacts',1);
INSERT INTO "sqlite_sequence" VALUES('tests',1);
INSERT INTO "sqlite_sequence" VALUES('uploads',1);
COMMIT;
